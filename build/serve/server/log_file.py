"""The file that a server writes to: its own user's, and never larger than twice its bound."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 64 * 2**20


def open_log(path: Path) -> BinaryIO:
    """For writing at its end; nobody but its user reads it."""
    path.touch(0o600)
    return path.open("ab")


def trim_log(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Moves what a log holds to `PATH.1` once it is more than `max_bytes`. Who writes at its end goes on writing."""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= max_bytes:
            return
        # On a full disk what was written before goes first: the log itself is what must not fill it.
        kept = path.with_name(f"{path.name}.1")
        kept.unlink(missing_ok=True)
        try:
            shutil.copy(path, kept)
        finally:
            os.truncate(path, 0)
