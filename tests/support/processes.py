"""The descendants of processes, and which are gone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def descendants(pid: int) -> list[int]:
    """Children, then theirs."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def is_gone(pid: int) -> bool:
    """A zombie that its parent has yet to read is gone too."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def shared_memory_of(pids: list[int]) -> set[Path]:
    """The regions of Triton's Python stages among them: a stage is told the name of its own on its command line."""
    words: set[str] = set()
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            words.update(psutil.Process(pid).cmdline())
    return {region for word in words if word and "/" not in word and (region := Path("/dev/shm") / word).is_file()}
