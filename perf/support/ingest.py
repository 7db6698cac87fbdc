"""Stage 1 reading one video in a process of its own: prints what it took as one line of JSON.

python -m perf.support.ingest SAMPLER VIDEO FRAMES CHECKPOINT
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import torch

from preprocess.cache.disk_cache import DiskCache
from preprocess.chunks.video_patches import temporal_patches
from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.media.segments import decode_segment, segments_of
from preprocess.plan.selection import select_video
from preprocess.request.options import VideoOptions
from preprocess.settings import load_settings
from preprocess.workers.pool import Workers
from preprocess.workers.reader import Reader
from preprocess.workers.worker import WorkerLimits


def go_on() -> None:
    """Nothing interrupts a benchmark."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(folder))


def measure(sampler: str, path: Path, frames: int, checkpoint: Path, folder: Path) -> None:
    settings = load_settings(checkpoint)
    workers = Workers(1, WorkerLimits())
    library = Library(path.parent, 1 << 26)
    reader = Reader(library, workers, go_on, cache=DiskCache(folder / "cache", 1 << 32))
    attachment = Attachment("video", path.name, path.name)
    options = VideoOptions(sampler=sampler, fps=60, max_frames=frames)

    # As in the stage (preprocess.service).
    torch.set_num_threads(1)
    # A server's workers have been started long ago.
    with contextlib.suppress(InvalidArgumentError):
        reader.image_size(Attachment("image", "none", b"none"))
    started, cpu = time.perf_counter(), time.process_time()
    video = reader.video(attachment, thumbnails=sampler == "adaptive", subtitles=True)
    look = select_video(video, options, settings)
    planned = time.perf_counter() - started
    patches = temporal_patches(look, settings.patching, reader)
    next(patches)
    first = time.perf_counter() - started
    for _ in patches:
        pass
    seconds = time.perf_counter() - started
    cpu_seconds = time.process_time() - cpu
    peak_mb = process_peak_mb("self")

    started = time.perf_counter()
    again = reader.video(attachment, thumbnails=sampler == "adaptive", subtitles=True)
    for _ in temporal_patches(select_video(again, options, settings), settings.patching, reader):
        pass
    follow_up_seconds = time.perf_counter() - started
    # What it shares with us is counted on both sides.
    peak_mb += worker_peak_mb()
    # A process's time, its start included, is known once it has ended.
    workers.shut_down()
    worker = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds += worker.ru_utime + worker.ru_stime

    assert look.indices is not None
    packets = count()
    cheapest = time.process_time()
    with library.open_video(attachment) as (container, stream):
        stream.codec_context.thread_count = 1
        for segment in segments_of(video.timeline, look.indices):
            for _ in decode_segment(container, stream, video.timeline, segment, lambda: next(packets) and None):
                pass
    print(
        json.dumps(
            {
                "video_seconds": video.timeline.end_seconds,
                "plan_seconds": planned,
                "first_seconds": first,
                "seconds": seconds,
                "follow_up_seconds": follow_up_seconds,
                "cpu_seconds": cpu_seconds,
                "peak_mb": peak_mb,
                "frames": len(look.indices),
                "decoded": next(packets),
                "cheapest_cpu_seconds": time.process_time() - cheapest,
            }
        )
    )


def worker_peak_mb() -> float:
    """Our child processes together."""
    children = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    return sum(process_peak_mb(pid) for pid in children)


def process_peak_mb(pid: str) -> float:
    """The peak since exec. The one that getrusage and wait tell begins with the size of the process before it."""
    lines = Path("/proc", pid, "status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
