"""The workers: processes that read media, started before they are needed, replaced when they die or stall."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from preprocess.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    RequestError,
    ResourceExhaustedError,
    UnavailableError,
)
from preprocess.exchange import Exchange, Message
from preprocess.heap import LARGE_BYTES

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_TASKS_EACH = 256
"""After so many a worker is replaced: what damaged files make libraries forget to free goes with it."""
_RETRY_SECONDS = 1.0
_LAST_SECONDS = 5.0
"""For a process that has hung up to be gone."""
_ERRORS = {
    error.code: error for error in (InvalidArgumentError, NotFoundError, ResourceExhaustedError, DeadlineExceededError)
}
# Of memory: no pool of threads for linear algebra, which there is none of; one heap for all threads that decode, and
# pictures outside of it, so that what they took is given back.
_FRUGAL = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(LARGE_BYTES)}
# The package's folder is not installed: the first entry of the path, which would be the current folder, is its own.
_START = "import sys; sys.path[0] = sys.argv.pop(1); from preprocess.worker import main; main(*map(int, sys.argv[1:]))"


@dataclass(frozen=True)
class WorkerLimits:
    """What a task on one file may take before it fails."""

    memory_bytes: int = 4 << 30
    """Of address space."""
    task_cpu_seconds: int = 30
    """For any task; more for what there is to read and to decode (allowance.py)."""
    cpu_seconds: int = 1800
    """For the largest task."""
    stall_seconds: float = 30.0
    """Without any progress, as a codec in an endless loop makes none."""


class Worker:
    """The stage's side of one process. Used by one thread at a time."""

    def __init__(self, limits: WorkerLimits) -> None:
        ours, theirs = socket.socketpair()
        with ExitStack() as failing, theirs:
            failing.callback(ours.close)
            end = theirs.fileno()
            folder = str(Path(__file__).resolve().parents[1])
            arguments = map(str, (end, os.getpid(), limits.memory_bytes))
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, folder, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=[end],
                env={**os.environ, **_FRUGAL},
            )
            failing.callback(self._process.wait)
            failing.callback(self._process.kill)
            self._exchange = Exchange(ours)
            failing.pop_all()
        self._exchange.give_up_after(limits.stall_seconds)
        self._limits = limits
        self.tasks = 0
        self.is_free = True
        """It waits for a task: the last one was done or failed as expected."""

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, task: Message, interrupt: Callable[[], None]) -> Generator[Message, None, None]:
        """What the worker says of the task, the last message being its result, `done`.

        Calls `interrupt` now and then; what that raises ends the task. Raises what the task fails with, and for a
        worker that dies or stalls an error that names the medium.
        """
        self.is_free = False
        self.tasks += 1
        try:
            self._exchange.send(task)
        except OSError as error:
            raise self._died(task) from error
        while True:
            self._wait(task, interrupt)
            message = self._receive(task)
            kind = message.values.get("kind")
            self.is_free = kind in ("done", "error")
            if kind == "error":
                raise _ERRORS.get(message.values["code"], InvalidArgumentError)(message.values["message"])
            if kind != "alive":
                yield message
            if kind == "done":
                return

    def reply(self, message: Message) -> None:
        """Answers what the worker said. If it is gone, `run` says so next."""
        with suppress(OSError):
            self._exchange.send(message)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._exchange.close()

    def _wait(self, task: Message, interrupt: Callable[[], None]) -> None:
        deadline = time.monotonic() + self._limits.stall_seconds
        while not self._exchange.has_message(_POLL_SECONDS):
            interrupt()
            if time.monotonic() > deadline:
                raise self._stalled(task)
        interrupt()

    def _receive(self, task: Message) -> Message:
        try:
            return self._exchange.receive()
        except BlockingIOError:
            raise self._stalled(task) from None
        except (EOFError, OSError, ValueError) as error:
            raise self._died(task) from error

    def _stalled(self, task: Message) -> RequestError:
        return DeadlineExceededError(
            f"{task.values['name']} cannot be read: its decoder made no progress for {self._limits.stall_seconds:g} s"
        )

    def _died(self, task: Message) -> RequestError:
        """Why, by the process's exit status."""
        try:
            status = -self._process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            return self._stalled(task)
        name = task.values["name"]
        if status == signal.SIGXCPU:
            return ResourceExhaustedError(
                f"{name} takes more than {task.values['cpu_seconds']} s of processor time to read,"
                " the most accepted for a file of its size and as many pictures"
            )
        if status == signal.SIGKILL:
            return UnavailableError(f"the process that read {name} was killed, perhaps for want of memory")
        reason = signal.Signals(status).name if status > 0 else f"exit status {-status}"
        return InvalidArgumentError(f"{name} cannot be read: its decoder crashed ({reason})")


class Workers:
    """`count` workers at least, and as many as there are requests that read at the same time."""

    def __init__(self, count: int, limits: WorkerLimits) -> None:
        self._count = count
        self.limits = limits
        self._idle: list[Worker] = []
        self._started = 0
        self._waiting = 0
        self._stopping = False
        self._start_error: OSError | None = None
        """Why the last worker could not be started."""
        self._changed = threading.Condition()
        # A worker ends with the thread that started it (PR_SET_PDEATHSIG): it is one that stays.
        self._starter = threading.Thread(target=self._keep_started, name="workers", daemon=True)
        self._starter.start()

    @contextmanager
    def lend(self, interrupt: Callable[[], None]) -> Iterator[Worker]:
        """A worker for one task, waited for if need be. One that is not free again afterwards is ended.

        Raises ResourceExhaustedError where none can be started for as long as a worker may stall.
        """
        worker = self._take(interrupt)
        try:
            yield worker
        finally:
            self._give_back(worker)

    def shut_down(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._starter.join()
        for worker in self._idle:
            worker.end()

    def _take(self, interrupt: Callable[[], None]) -> Worker:
        deadline = time.monotonic() + self.limits.stall_seconds
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            try:
                while True:
                    while self._idle:
                        worker = self._idle.pop()
                        if worker.is_alive():
                            return worker
                        self._end(worker)
                    if self._start_error is not None and time.monotonic() > deadline:
                        raise ResourceExhaustedError(
                            f"no process that reads media could be started for {self.limits.stall_seconds:g} s"
                            f" ({self._start_error.strerror}); retry later"
                        )
                    self._changed.wait(_POLL_SECONDS)
                    interrupt()
            finally:
                self._waiting -= 1

    def _give_back(self, worker: Worker) -> None:
        with self._changed:
            more_than_enough = len(self._idle) >= max(self._count, self._waiting)
            if not worker.is_free or worker.tasks >= _TASKS_EACH or more_than_enough or self._stopping:
                self._end(worker)
            else:
                self._idle.append(worker)
                self._changed.notify_all()

    def _end(self, worker: Worker) -> None:
        worker.end()
        self._started -= 1
        self._changed.notify_all()

    def _keep_started(self) -> None:
        with self._changed:
            while not self._stopping:
                if self._started >= self._count and self._waiting <= len(self._idle):
                    self._changed.wait()
                    continue
                try:
                    self._idle.append(Worker(self.limits))
                except OSError as error:
                    log.warning("a worker could not be started: %s", error)
                    self._start_error = error
                    self._changed.wait(_RETRY_SECONDS)
                    continue
                self._start_error = None
                self._started += 1
                self._changed.notify_all()
