"""Stage 1 reading one video in a process of its own: prints what it took as one line of JSON.

python perf/ingest.py SAMPLER VIDEO FRAMES
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "build"))
sys.path.insert(0, str(Path(__file__).parents[1] / "model_repository" / "video_preprocess" / "1"))

import torch
from checkpoint_factory import make_checkpoint
from preprocess.chunks import temporal_patches
from preprocess.look import look_at_video
from preprocess.media import Library
from preprocess.memory import Memory
from preprocess.messages import Attachment
from preprocess.options import VideoOptions
from preprocess.recall import recall_video
from preprocess.settings import load_settings
from preprocess.stretches import decode_stretch, stretches


def go_on() -> None:
    """Nothing interrupts a benchmark."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(folder))


def measure(sampler: str, path: Path, frames: int, folder: Path) -> None:
    make_checkpoint(folder / "checkpoint", seed=0)
    settings = load_settings(folder / "checkpoint")
    library = Library(path.parent, 1 << 26, Memory(folder / "memory", 1 << 32))
    attachment = Attachment("video", path.name, path.name)
    options = VideoOptions(sampler=sampler, fps=60, max_frames=frames)

    # As in the stage (preprocess.service).
    torch.set_num_threads(1)
    started, cpu = time.perf_counter(), time.process_time()
    video = recall_video(attachment, library, closer=sampler == "adaptive", subtitles=True, interrupt=go_on)
    look = look_at_video(video, options, settings)
    planned = time.perf_counter() - started
    patches = temporal_patches(look, settings.patching, library, go_on)
    next(patches)
    first = time.perf_counter() - started
    for _ in patches:
        pass
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    started = time.perf_counter()
    again = recall_video(attachment, library, closer=sampler == "adaptive", subtitles=True, interrupt=go_on)
    for _ in temporal_patches(look_at_video(again, options, settings), settings.patching, library, go_on):
        pass
    follow_up_seconds = time.perf_counter() - started

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


if __name__ == "__main__":
    main()
