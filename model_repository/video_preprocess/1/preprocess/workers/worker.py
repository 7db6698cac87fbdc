"""A worker as the stage sees it: a process that does one task at a time, and may die or stall over it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
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
from preprocess.workers.channel import Exchange, Message
from preprocess.workers.heap import LARGE_BYTES

_POLL_SECONDS = 0.1
# Fields of /proc/PID/stat, counted from the state, which is the first field behind the program's name.
_USER_TICKS, _SYSTEM_TICKS = 11, 12
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_LAST_SECONDS = 5.0
"""For a process that has hung up to be gone."""
_ERRORS = {
    error.code: error for error in (InvalidArgumentError, NotFoundError, ResourceExhaustedError, DeadlineExceededError)
}
# To save memory: no pool of threads for linear algebra, which there is none of; one heap for all threads that decode,
# and pictures outside of it, so that what they took is given back.
_FRUGAL = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(LARGE_BYTES)}
# The package's folder is not installed: the first entry of the path, which would be the current folder, is its own.
_START = (
    "import sys; sys.path[0] = sys.argv.pop(1);"
    " from preprocess.workers.process import main; main(*map(int, sys.argv[1:]))"
)


@dataclass(frozen=True)
class WorkerLimits:
    """The bounds on a task on one file."""

    memory_bytes: int = 4 << 30
    """Address space."""
    task_cpu_seconds: int = 30
    """For any task; more for what there is to read and to decode (allowance.py)."""
    image_cpu_seconds: int = 5
    """The same for an image."""
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
            folder = str(Path(__file__).resolve().parents[2])
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
        """The worker's messages about the task: the last is its result, `done`, or the only one is `needs`: how much
        memory it has to be given.

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
            self.is_free = kind in ("done", "error", "needs")
            if kind == "error":
                raise _ERRORS.get(message.values["code"], InvalidArgumentError)(message.values["message"])
            if kind != "alive":
                yield message
            if kind in ("done", "needs"):
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
        """A worker stalls that does nothing for so long, or computes for so long without a word. One that has to share
        the processor with others is waited for until it has had as much of it."""
        begun = computed = self._computed_seconds()
        advanced = time.monotonic()
        while not self._exchange.has_message(_POLL_SECONDS):
            interrupt()
            now, before = time.monotonic(), computed
            computed = self._computed_seconds()
            if computed > before:
                advanced = now
            if max(computed - begun, now - advanced) > self._limits.stall_seconds:
                raise self._stalled(task)
        interrupt()

    def _computed_seconds(self) -> float:
        """Processor time that the process has had; 0 once it is gone, which its next message tells."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS_PER_SECOND

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
            return InvalidArgumentError(
                f"{name} takes more than {task.values['cpu_seconds']} s of processor time to read,"
                " the most accepted for a file of its size and as many pictures"
            )
        if status == signal.SIGKILL:
            return UnavailableError(f"the process that read {name} was killed, perhaps for want of memory")
        reason = signal.Signals(status).name if status > 0 else f"exit status {-status}"
        return InvalidArgumentError(f"{name} cannot be read: its decoder crashed ({reason})")
