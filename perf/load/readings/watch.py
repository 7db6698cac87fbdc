"""Readings of a server's processes: memory, handles, threads, shared memory, KV blocks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from build.serve.server.prerequisites import SHARED_MEMORY
from perf.load.readings.metrics import parse_blocks_held, read_metrics
from tests.support.serving import Server

MIB = 2**20
WORKERS = "video_preprocess workers"
"""The processes in which stage 1 reads media; they come and go with the load, and are counted together."""


@dataclass(frozen=True)
class Holding:
    """One process: resident memory without what it shares with others, open files, threads."""

    memory_mib: float
    handles: int
    threads: int


@dataclass(frozen=True)
class Sample:
    """The whole server at one moment, `requests` having ended `seconds` after the run's beginning."""

    seconds: float
    requests: int
    processes: dict[str, Holding]
    shared_memory_mib: float
    blocks_held: int


def sample(server: Server, seconds: float, requests: int) -> Sample:
    """Looks at everything now, and asks no stage: a request of its own would leave traces in what is looked at."""
    processes: dict[str, Holding] = {}
    shared = 0
    for name, pid in server.pids().items():
        process = psutil.Process(pid)
        processes[name] = _holding([process])
        if name == "video_preprocess":
            processes[WORKERS] = _holding(process.children(recursive=True))
        if name != "triton":
            # STUB MODEL/VERSION/model.py REGION ...
            shared += _allocated(SHARED_MEMORY / process.cmdline()[2])
    blocks_held = parse_blocks_held(read_metrics(server.metrics_url))
    return Sample(seconds, requests, processes, shared / MIB, blocks_held)


def _holding(processes: list[psutil.Process]) -> Holding:
    memory, handles, threads = 0, 0, 0
    for process in processes:
        # A worker may end between two of the questions; one that has, and is not yet waited for, has nothing open.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            sizes, opened, running = process.memory_info(), process.num_fds(), process.num_threads()
            memory += sizes.rss - sizes.shared
            handles += opened
            threads += running
    return Holding(memory / MIB, handles, threads)


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
