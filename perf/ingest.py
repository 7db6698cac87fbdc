"""Stage 1 reading one video in a process of its own: prints what it took as one line of JSON.

python -m perf.ingest SAMPLER VIDEO FRAMES CHECKPOINT
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

from preprocess.cache.cached import recall_video
from preprocess.cache.disk_cache import Memory
from preprocess.chunks.chunks import temporal_patches
from preprocess.errors import InvalidArgumentError
from preprocess.media.library import Library
from preprocess.media.segments import decode_stretch, stretches
from preprocess.plan.selection import look_at_video
from preprocess.request.messages import Attachment
from preprocess.request.options import VideoOptions
from preprocess.settings import load_settings
from preprocess.workers.pool import WorkerLimits, Workers
from preprocess.workers.reading import read_image_size


def go_on() -> None:
    """Nothing interrupts a benchmark."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(folder))


def measure(sampler: str, path: Path, frames: int, checkpoint: Path, folder: Path) -> None:
    settings = load_settings(checkpoint)
    workers = Workers(1, WorkerLimits())
    library = Library(path.parent, 1 << 26, Memory(folder / "memory", 1 << 32), workers)
    attachment = Attachment("video", path.name, path.name)
    options = VideoOptions(sampler=sampler, fps=60, max_frames=frames)

    # As in the stage (preprocess.service).
    torch.set_num_threads(1)
    # A server's workers have been started long ago.
    with contextlib.suppress(InvalidArgumentError):
        read_image_size(Attachment("image", "none", b"none"), library, go_on)
    started, cpu = time.perf_counter(), time.process_time()
    video = recall_video(attachment, library, closer=sampler == "adaptive", subtitles=True, interrupt=go_on)
    look = look_at_video(video, options, settings)
    planned = time.perf_counter() - started
    patches = temporal_patches(look, settings.patching, library, go_on)
    next(patches)
    first = time.perf_counter() - started
    for _ in patches:
        pass
    seconds = time.perf_counter() - started
    cpu_seconds = time.process_time() - cpu
    peak_mb = process_peak_mb("self")

    started = time.perf_counter()
    again = recall_video(attachment, library, closer=sampler == "adaptive", subtitles=True, interrupt=go_on)
    for _ in temporal_patches(look_at_video(again, options, settings), settings.patching, library, go_on):
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
        for stretch in stretches(video.timeline, look.indices):
            for _ in decode_stretch(container, stream, video.timeline, stretch, lambda: next(packets) and None):
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
