"""Files on a disk that may be full: private to the server's user, and a clear error when there is no room."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ResourceExhausted, ServerUnavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
# SQLite has other errors when it cannot make a file of its own: with less than this the disk is the reason.
_LEAST_BYTES = 2**20
_MOST_KEPT_FREE_BYTES = 2**30
_SHARE_KEPT_FREE = 20


class DiskFull(ResourceExhausted):
    """The disk has no room, whatever the quotas say."""

    code = "insufficient_storage"


@contextmanager
def told(folder: Path, what: str) -> Iterator[None]:
    """Tells what the disk of `folder` refuses in words that a caller understands; `what` is kept there.

    Raises:
        DiskFull: there is no room.
        ServerUnavailable: other processes write to the index for too long.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise no_room(what) from error
        raise
    except sqlite3.OperationalError as error:
        # The last byte is the code without what SQLite adds to it.
        code = error.sqlite_errorcode & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise ServerUnavailable(f"the index of {what} is busy; ask again") from error
        if code == sqlite3.SQLITE_FULL or free_bytes(folder) < _LEAST_BYTES:
            raise no_room(what) from error
        raise


def no_room(what: str, kept_free_bytes: int = 0) -> DiskFull:
    """The error that says so, and not how much is free: that would tell each caller what the others upload."""
    kept = f", as {kept_free_bytes:,} bytes are kept free" if kept_free_bytes else ""
    return DiskFull(f"the server's disk has no room for {what}{kept}; delete files, or wait until some expire")


def free_bytes(folder: Path) -> int:
    """The bytes that the disk of `folder` still holds for this user."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def default_free_bytes(folder: Path) -> int:
    """The bytes that are left free unless somebody says otherwise: 1 GiB, or a twentieth of a small disk."""
    disk = os.statvfs(folder)
    return min(_MOST_KEPT_FREE_BYTES, disk.f_blocks * disk.f_frsize // _SHARE_KEPT_FREE)


def private_folder(folder: Path) -> Path:
    """Makes the folder and those above it that are missing, for nobody but this user; one that exists stays as it is.

    Raises OSError, which names it, if it cannot be made."""
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder


def open_private(path: str | Path, flags: int) -> int:
    """An `opener` for `open`: what it makes is for nobody but this user, and no link is followed."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
