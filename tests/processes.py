"""What tests ask of processes: who descends from whom, and who is gone."""

from __future__ import annotations

import contextlib
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Children, then theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # Processes of other tests come and go.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def is_gone(pid: int) -> bool:
    """A zombie that its parent has yet to read is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def shared_memory_of(pids: list[int]) -> set[Path]:
    """The regions of Triton's Python stages among them: a stage is told the name of its own on its command line."""
    words: set[str] = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words.update(Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
    return {region for word in words if word and "/" not in word and (region := Path("/dev/shm") / word).is_file()}
