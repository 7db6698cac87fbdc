"""The workers: started before they are needed, lent by turns, replaced when they die or stall."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from preprocess.errors import ResourceExhaustedError
from preprocess.workers.machine import cores, memory_bytes
from preprocess.workers.worker import Worker, WorkerLimits

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_TASKS_EACH = 256
"""After so many a worker is replaced: what damaged files make libraries forget to free goes with it."""
_RETRY_SECONDS = 1.0
_LEAST_MOST = 4
_WORKERS_EACH_CORE = 2
_MEMORY_SHARE = 1 / 4
"""The share of the machine's memory for what workers decode, unless it is set otherwise."""


def most_workers() -> int:
    """As many as this machine's cores can keep busy, some of which wait for stage 3."""
    return max(_LEAST_MOST, _WORKERS_EACH_CORE * cores())


def most_memory() -> int:
    """A share of what this machine or container has."""
    return int(memory_bytes() * _MEMORY_SHARE)


@dataclass(eq=False)
class _Wait:
    """A task that waits for a worker and for memory."""

    owner: str
    memory_bytes: int
    served: threading.Condition
    worker: Worker | None = None


class Workers:
    """`count` workers at least, and more while more tasks wait, up to `most`; None: as many as `most_workers` says.

    The tasks that they do at a time take at most `memory_bytes` together; None: as much as `most_memory` says.
    An owner other than the common one, which is empty, holds at most half of each at a time, or a single task.
    """

    def __init__(
        self, count: int, limits: WorkerLimits, most: int | None = None, memory_bytes: int | None = None
    ) -> None:
        self._count = count
        self._most = max(count, most or most_workers())
        self._most_each = max(1, self._most // 2)
        self.limits = limits
        self.memory_bytes = memory_bytes or most_memory()
        self._idle: list[Worker] = []
        """None of those who wait may have one of these: a worker is assigned as soon as it is free."""
        self._started = 0
        self._waiting: list[_Wait] = []
        """In the order in which they came."""
        self._held: Counter[str] = Counter()
        """How many workers each owner has."""
        self._memory_held: Counter[str] = Counter()
        """How many bytes the tasks of each owner take."""
        self._stopping = False
        self._start_error: OSError | None = None
        """Why the last worker could not be started."""
        self._failing_since = 0.0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        """For the thread that starts workers."""
        # A worker ends with the thread that started it (PR_SET_PDEATHSIG): it is one that stays.
        self._starter = threading.Thread(target=self._keep_started, name="workers", daemon=True)
        self._starter.start()

    @contextmanager
    def lend(self, interrupt: Callable[[], None], owner: str = "", memory_bytes: int = 0) -> Iterator[Worker]:
        """A worker for one task, waited for if need be. One that is not free again afterwards is ended.

        The next worker goes to the owner who holds the fewest of those who wait, to the first to come among equals.
        While there is not the memory for that task, which takes at most `self.memory_bytes`, the others wait too:
        smaller ones would keep it away for good. Calls `interrupt` while it waits; what that raises ends the waiting.
        Raises ResourceExhaustedError where no worker can be started for as long as one may stall.
        """
        wait = _Wait(owner, memory_bytes, threading.Condition(self._lock))
        worker = self._take(wait, interrupt)
        try:
            yield worker
        finally:
            self._give_back(worker, wait)

    def shut_down(self) -> None:
        with self._lock:
            self._stopping = True
            self._changed.notify()
        self._starter.join()
        for worker in self._idle:
            worker.end()

    def _take(self, wait: _Wait, interrupt: Callable[[], None]) -> Worker:
        came = time.monotonic()
        try:
            with self._lock:
                self._waiting.append(wait)
                self._assign()
            while True:
                with self._lock:
                    if wait.worker is None:
                        wait.served.wait(_POLL_SECONDS)
                    if wait.worker is not None:
                        return wait.worker
                    self._check_starting(came)
                interrupt()
        except BaseException:
            with self._lock:
                if wait in self._waiting:
                    self._waiting.remove(wait)
                    # Others may have waited for this one to have its memory.
                    self._assign()
            if wait.worker is not None:
                self._give_back(wait.worker, wait)
            raise

    def _check_starting(self, came: float) -> None:
        """Raises ResourceExhaustedError for a task that came at `came` where no worker could be started since."""
        since = max(came, self._failing_since)
        if self._start_error is not None and time.monotonic() - since > self.limits.stall_seconds:
            raise ResourceExhaustedError(
                f"no process that reads media could be started for {self.limits.stall_seconds:g} s"
                f" ({self._start_error.strerror}); retry later"
            )

    def _next(self) -> _Wait | None:
        """The task that gets the next worker; None where no owner may have one more, or there is no memory for it."""
        entitled = (wait for wait in self._waiting if self._may_have(wait))
        wait = min(entitled, key=lambda wait: self._held[wait.owner], default=None)
        if wait is None or self._memory_held.total() + wait.memory_bytes > self.memory_bytes:
            return None
        return wait

    def _may_have(self, wait: _Wait) -> bool:
        """Whether the owner of a task would hold no more than is one owner's."""
        workers, memory = self._held[wait.owner], self._memory_held[wait.owner] + wait.memory_bytes
        return not wait.owner or not workers or (workers < self._most_each and memory <= self.memory_bytes // 2)

    def _assign(self) -> None:
        """Gives idle workers to those who wait, and has more started if they do not suffice."""
        while (wait := self._next()) is not None and self._idle:
            worker = self._idle.pop()
            if not worker.is_alive():
                self._end(worker)
                continue
            wait.worker = worker
            self._held[wait.owner] += 1
            self._memory_held[wait.owner] += wait.memory_bytes
            self._waiting.remove(wait)
            wait.served.notify()
        self._changed.notify()

    def _give_back(self, worker: Worker, wait: _Wait) -> None:
        with self._lock:
            self._held[wait.owner] -= 1
            self._memory_held[wait.owner] -= wait.memory_bytes
            if not self._held[wait.owner]:
                del self._held[wait.owner], self._memory_held[wait.owner]
            if worker.is_free and worker.tasks < _TASKS_EACH and not self._stopping:
                self._idle.append(worker)
            else:
                self._end(worker)
            self._assign()
            if len(self._idle) > self._count:
                self._end(self._idle.pop())

    def _end(self, worker: Worker) -> None:
        worker.end()
        self._started -= 1

    def _keep_started(self) -> None:
        with self._lock:
            while not self._stopping:
                # Nobody waits who might have an idle one.
                if self._started >= self._count and (self._next() is None or self._started >= self._most):
                    self._changed.wait()
                    continue
                try:
                    self._idle.append(Worker(self.limits))
                except OSError as error:
                    log.warning("a worker could not be started: %s", error)
                    if self._start_error is None:
                        self._failing_since = time.monotonic()
                    self._start_error = error
                    self._changed.wait(_RETRY_SECONDS)
                    continue
                self._start_error = None
                self._started += 1
                self._assign()
