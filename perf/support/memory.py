"""Memory that is a process's own: without files, and without what it shares with others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


def own_mib(pid: int) -> float:
    """Resident; tensors in shared memory are not part of it."""
    return _status_mib(pid).get("RssAnon", 0.0)


def own_peak_mib(pid: int) -> float:
    """The most that was resident since the start or `forget_peak`, in the blink between two looks too: less what is
    not the process's own now, which hardly changes."""
    status = _status_mib(pid)
    return status.get("VmHWM", 0.0) - status.get("RssFile", 0.0) - status.get("RssShmem", 0.0)


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def own_mib_of_family(pid: int) -> float:
    """The memory of the process and all that it started."""
    return own_mib(pid) + own_mib_of_children(pid)


def own_mib_of_children(pid: int) -> float:
    """The memory of all that the process started, as far as they still run."""
    return sum(_of_children(pid, own_mib))


def own_peak_mib_of_family(pid: int) -> float:
    """The peak of the process and all that it started, each with its own peak as long as it runs."""
    return own_peak_mib(pid) + sum(_of_children(pid, own_peak_mib))


def forget_peaks_of_family(pid: int) -> None:
    forget_peak(pid)
    _of_children(pid, forget_peak)


def _of_children(pid: int, look: Callable[[int], T]) -> list[T]:
    seen = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(FileNotFoundError, ProcessLookupError):
            seen.append(look(child.pid))
    return seen


def _status_mib(pid: int) -> dict[str, float]:
    """The lines of /proc/PID/status that tell a size. Empty for a process that has ended and is not yet waited for."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) / 1024 for line in lines if line[-1] == "kB"}
