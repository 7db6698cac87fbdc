"""Stage 1's workers for tests, started once, and readers that use them: `reader(folder)`."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from preprocess.media.library import Library
from preprocess.workers.pool import Workers
from preprocess.workers.reader import Reader
from preprocess.workers.worker import WorkerLimits


def go_on() -> None:
    """Nothing interrupts."""


@cache
def workers() -> Workers:
    started = Workers(2, WorkerLimits())
    atexit.register(started.shut_down)
    return started


def reader(
    root: Path | None, max_frame_pixels: int = 1 << 26, interrupt: Callable[[], None] = go_on, **options: Any
) -> Reader:
    return Reader(Library(root, max_frame_pixels), workers(), interrupt, **options)
