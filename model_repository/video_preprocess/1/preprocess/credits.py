"""Credits: the pipe on which stage 3 says how many chunks may be in flight, and when a session is over.

Stage 1 makes a FIFO and reads it. Stage 3 writes `=N` and a line feed once it has made room, N being how many of the
prompt's tokens it holds already, then `+` for each chunk that may be sent, and `.` when the session is over.
"""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path

from preprocess.errors import DeadlineExceededError, UnavailableError

WRITER_SECONDS = 60.0
"""How long stage 3 may take to open the pipe. A caller of stage 1 alone gets an error after it."""
_POLL_SECONDS = 0.5


class SessionOver(Exception):  # noqa: N818 - the ordinary end of a session, not an error
    """Stage 3 has ended the session."""


class Credits:
    """Stage 1's end of one session's pipe. Used by one thread; `stopping` ends every wait."""

    def __init__(self, directory: Path, session: str, stopping: threading.Event) -> None:
        self.path = directory / session
        os.mkfifo(self.path, 0o600)
        try:
            self._pipe = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            self.path.unlink()
            raise
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._stopping = stopping
        self._granted = 0
        self._answer = b""
        self._over = False
        self._writer_came = False
        self._writer_deadline = time.monotonic() + WRITER_SECONDS

    def held_tokens(self) -> int:
        """Waits until stage 3 has made room, and says how many of the prompt's tokens it holds; raises as `check`."""
        self.check()
        while b"\n" not in self._answer:
            self._read(_POLL_SECONDS)
        return int(self._answer.strip(b"=\n"))

    def take(self) -> None:
        """Waits for a credit and uses it up; raises what `check` raises."""
        self.check()
        while not self._granted:
            self._read(_POLL_SECONDS)
        self._granted -= 1

    def check(self) -> None:
        """Reads what has come, without waiting.

        Raises SessionOver once the session is over, UnavailableError if stage 3 is gone without saying so or this stage
        shuts down, DeadlineExceededError if stage 3 never came.
        """
        self._read(0)

    def wait_until_over(self) -> None:
        """Returns when stage 3 ends the session; raises UnavailableError or DeadlineExceededError as `check` does."""
        try:
            while True:
                self._read(_POLL_SECONDS)
        except SessionOver:
            return

    def close(self) -> None:
        os.close(self._pipe)
        self.path.unlink(missing_ok=True)

    def _read(self, seconds: float) -> None:
        if self._over:
            raise SessionOver
        if self._stopping.is_set():
            raise UnavailableError("the server shuts down")
        events = self._poll.poll(seconds * 1000)
        try:
            # Without a writer a pipe reads as ended, before the first as after the last: the poll tells them apart.
            received = os.read(self._pipe, 4096)
        except BlockingIOError:
            self._writer_came = True
            return
        if received:
            self._writer_came = True
            # Both ends are open: the name has served.
            self.path.unlink(missing_ok=True)
            self._over = b"." in received
            if b"\n" not in self._answer:
                answer, line_feed, received = received.partition(b"\n")
                self._answer += answer + line_feed
            self._granted += received.count(b"+")
            if self._over:
                raise SessionOver
        elif events or self._writer_came:
            raise UnavailableError("the decoder ended without finishing the session")
        elif time.monotonic() > self._writer_deadline:
            raise DeadlineExceededError(f"no decoder opened the session's credits within {WRITER_SECONDS:g} seconds")
