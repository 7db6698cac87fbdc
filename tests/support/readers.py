"""Stage 1's workers for tests, started once: `library(folder)`."""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path

from preprocess.cache.disk_cache import Memory
from preprocess.media.library import Library
from preprocess.workers.pool import WorkerLimits, Workers


@cache
def workers() -> Workers:
    started = Workers(2, WorkerLimits())
    atexit.register(started.shut_down)
    return started


def library(root: Path | None, max_frame_pixels: int = 1 << 26, memory: Memory | None = None) -> Library:
    return Library(root, max_frame_pixels, memory, workers())
