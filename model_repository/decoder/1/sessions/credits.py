"""The named pipe by which stage 3 lets stage 1 send chunks, and by which each notices the other's end."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import stat
from pathlib import Path

from engines.errors import RequestError, invalid_argument

SESSION_NAME = re.compile("[0-9a-f]{32}")
_GONE = "stage 1 (video_preprocess) is gone"


class Credits:
    """The writing end of one session's FIFO: `=N` and a line feed says that there is room and that the prompt's first N
    tokens are held, then each `+` lets one more chunk come; `.` says that the session is over."""

    def __init__(self, directory: Path, session: str) -> None:
        """Raises unavailable when nobody reads the FIFO, invalid_argument when there is something else by its name."""
        self._descriptor = _open_fifo(directory / session)
        self._poll = select.poll()
        # An event mask of 0 still reports POLLERR: on the writing end of a pipe, that its reader is gone.
        self._poll.register(self._descriptor, 0)

    def admit(self, held_tokens: int) -> None:
        """Says that there is room, and how much of the prompt is held. Raises unavailable when stage 1 is gone."""
        self._write(b"=%d\n" % held_tokens)

    def grant(self, chunks: int) -> None:
        """Lets `chunks` more come, or none. Raises unavailable when stage 1 is gone."""
        self._write(b"+" * chunks)

    def _write(self, marks: bytes) -> None:
        try:
            os.write(self._descriptor, marks)
        except (BrokenPipeError, BlockingIOError):
            raise RequestError("unavailable", _GONE) from None

    @property
    def has_reader(self) -> bool:
        """Whether stage 1 has the session still."""
        return not self._poll.poll(0)

    def check(self) -> None:
        """Raises unavailable when stage 1 is gone."""
        if not self.has_reader:
            raise RequestError("unavailable", _GONE)

    def end(self) -> None:
        """Tells stage 1 that the session is over."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._descriptor, b".")

    def close(self) -> None:
        os.close(self._descriptor)


def close_abandoned(directory: Path) -> None:
    """Opens and closes every FIFO in `directory`: their readers wait for a process that died, and learn it so."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if SESSION_NAME.fullmatch(path.name):
            with contextlib.suppress(RequestError):
                os.close(_open_fifo(path))


def _open_fifo(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):  # no reader, or not even a FIFO any more
            raise RequestError("unavailable", _GONE) from None
        raise invalid_argument(f"session {path.name}: its credits cannot be opened: {error.strerror}") from None
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise invalid_argument(f"session {path.name}: its credits are no FIFO")
    return descriptor
