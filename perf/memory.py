"""Memory that is a process's own: without files, and without what it shares with others."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil


def own_mib(pid: int) -> float:
    """Resident; tensors in shared memory are not part of it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), 0.0)


def own_mib_of_family(pid: int) -> float:
    """Of the process and all that it started."""
    return own_mib(pid) + own_mib_of_children(pid)


def own_mib_of_children(pid: int) -> float:
    """Of all that the process started, as far as they still run."""
    total = 0.0
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += own_mib(child.pid)
    return total
