"""Jobs that run side by side in threads, and whose results come in the order of the jobs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from queue import Empty, Full, Queue
from typing import Any, TypeVar

Result = TypeVar("Result")
Job = Callable[[Callable[[], None]], Generator[Result, None, None]]
"""Yields its results. It is given a function to call where work goes on, which raises CancelledError once nobody wants
them any more."""

_RESULTS_AHEAD = 2
"""Results of a job that wait for those of the jobs before it."""
_POLL_SECONDS = 0.1
_END = object()


def in_order(jobs: Iterable[Job[Result]], threads: int, ahead: int, interrupt: Callable[[], None]) -> Iterator[Result]:
    """The results of the jobs, in their order.

    `threads` jobs run at a time, and at most `ahead` are begun before their turn: while one takes long, the other
    threads have something to do.

    Calls `interrupt` in the caller's thread as work goes on; what that raises, or a job does, ends all jobs.
    """
    stopped, progressed = threading.Event(), threading.Event()

    def go_on() -> None:
        progressed.set()
        if stopped.is_set():
            raise CancelledError

    def take(results: Queue[Any]) -> Any:
        while True:
            if progressed.is_set():
                progressed.clear()
                interrupt()
            try:
                return results.get(timeout=_POLL_SECONDS)
            except Empty:
                continue

    waiting = iter(jobs)
    running: deque[Queue[Any]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="in_order") as pool:
        try:
            while True:
                # Threads take the jobs in their order: the one whose results are due is always running.
                while len(running) < ahead and (job := next(waiting, None)) is not None:
                    running.append(Queue(_RESULTS_AHEAD))
                    pool.submit(_run, job, running[-1], go_on)
                if not running:
                    return
                results = running.popleft()
                while (result := take(results)) is not _END:
                    if isinstance(result, BaseException):
                        raise result
                    yield result
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _run(job: Job[Result], results: Queue[Any], go_on: Callable[[], None]) -> None:
    def put(result: Any) -> None:
        while True:
            try:
                results.put(result, timeout=_POLL_SECONDS)
                return
            except Full:
                go_on()

    try:
        with closing(job(go_on)) as yielded:
            for result in yielded:
                put(result)
        put(_END)
    except CancelledError:
        pass
    except BaseException as error:
        put(error)
