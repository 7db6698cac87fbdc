"""Processes that stand still: stopped by a signal (SIGSTOP), they answer nobody, and do not end by themselves."""

from __future__ import annotations

from pathlib import Path

PATIENCE_SECONDS = 5.0
"""A process may be stopped for this long, as by somebody who looks at it."""


class Stopped:
    """Remembers since when processes are stopped, for somebody who looks again and again."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._since: dict[int, float] = {}

    def too_long(self, pid: int, now: float) -> bool:
        """Whether the process is stopped, and was seen so for longer than the patience. True once each time."""
        if not _is_stopped(pid):
            self._since.pop(pid, None)
            return False
        if now - self._since.setdefault(pid, now) <= self._patience_seconds:
            return False
        del self._since[pid]
        return True


def _is_stopped(pid: int) -> bool:
    """True for a process that a signal has stopped; one under a debugger (`t`) is left alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False
