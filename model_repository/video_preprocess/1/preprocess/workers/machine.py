"""The cores, memory and file handles of this machine, or of the container that it is to the stage."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def memory_bytes() -> int:
    """RAM, or less where a control group of this process (version 2, or 1 as containers see it) allows less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_cgroup_limits()])


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def raise_file_limit() -> int:
    """Lets this process open as many files as it may at all, and says how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _cgroup_limits() -> list[int]:
    found = []
    for file in _limit_files():
        try:
            content = file.read_text().strip()
        except OSError:
            continue
        if content.isdigit():
            found.append(int(content))
    return found


def _limit_files() -> list[Path]:
    """The group's own limit and those of the groups around it."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    files = [_CGROUPS / "memory" / "memory.limit_in_bytes"]
    for group in groups:
        if group.startswith("0::/"):
            folder = Path(group.removeprefix("0::/"))
            files += [_CGROUPS / parent / "memory.max" for parent in (folder, *folder.parents)]
    return files
