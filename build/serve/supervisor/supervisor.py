"""Keeps a Triton server answering: reloads a stage whose process died, restarts a server that cannot be helped.

Triton 2.51 never restarts a Python stage that died, and goes on calling itself ready. So the supervisor looks at the
stages' processes several times a second, asks each of them something cheap now and then, and calls the server ready
only after a model has answered a question.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from build.serve.server.api import PROBES, Api, in_background
from build.serve.server.process import Stub, TritonProcess
from build.serve.server.triton import ENSEMBLE, STAGES
from build.serve.supervisor.backoff import Backoff
from build.serve.supervisor.status import StageStatus, Status
from build.serve.supervisor.stopped import PATIENCE_SECONDS, Stopped

SERVER = "triton"


@dataclass(frozen=True)
class Limits:
    """How often the supervisor looks, and how long it is patient."""

    watch_seconds: float = 0.25
    probe_seconds: float = 5.0
    # A stage that answered this recently is taken to be answering.
    recent_seconds: float = 30.0
    # A stage that is busy answers a probe late; one that is silent for this long hangs.
    silence_seconds: float = 120.0
    # A process that is stopped (SIGSTOP) answers nobody until it is told to go on.
    stopped_seconds: float = PATIENCE_SECONDS
    # Loading reads a checkpoint of many gigabytes.
    load_seconds: float = 1800.0
    # A thing that keeps dying is repaired at once, then after 1, 2, 4, ... seconds, and never later than this.
    max_backoff_seconds: float = 60.0
    # A single unhealthy answer may be a machine that stood still for a second.
    unhealthy_probes: int = 3


class ServerError(RuntimeError):
    """The server did not come up. The message says why."""


@dataclass
class _Stage:
    """One stage, as the supervisor knows it."""

    stubs: list[Stub] = field(default_factory=list)
    # When it will be loaded again; None: it runs.
    due: float | None = None
    heals: int = 0
    probe: Future[bool] | None = None
    probed_at: float = 0.0
    answered_at: float | None = None
    unhealthy: int = 0


class Supervisor:
    """Runs a server that `launch` starts, until `stop`. `run` and `stop` may be called from different threads."""

    def __init__(
        self,
        launch: Callable[[], TritonProcess],
        api: Api,
        report: Callable[[str], None],
        limits: Limits | None = None,
        stage_died: Callable[[str, int], None] = lambda stage, retry_seconds: None,
    ) -> None:
        """`report` takes a line for people to read whenever something was noticed or repaired.

        stage_died: is told the stage whose process died, and in about how many seconds the server is whole again.
        """
        self._launch = launch
        self._api = api
        self._report = report
        self._limits = limits or Limits()
        self._stage_died = stage_died
        self._stopped = Stopped(self._limits.stopped_seconds)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._process: TritonProcess | None = None
        self._backoff = {name: Backoff(self._limits.max_backoff_seconds) for name in (SERVER, *STAGES)}
        self._stages = {name: _Stage() for name in STAGES}
        self._question: Future[None] | None = None
        self._answered_once = False
        self._restarts = 0
        self._started_at = 0.0
        self._loading_seconds = 0.0
        self._next_blindness = 0.0

    def run(self) -> None:
        """Starts the server and watches it until `stop` is called. ServerError when its first start fails."""
        try:
            self._start()
            while not self._stopping.wait(self._limits.watch_seconds):
                try:
                    self._watch()
                except OSError as error:
                    # Without file handles, memory or room on the disk nothing can be seen now. It is looked again soon.
                    self._tell_blindness(error)
        finally:
            self.stop()

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Ends the server and all its processes; with `grace_seconds` 0 at once. Returns when nothing is left."""
        self._stopping.set()
        self._ready.clear()
        with self._lock:
            if self._process is not None:
                self._process.stop(grace_seconds)
                self._process = None

    def wait_ready(self, timeout_seconds: float) -> bool:
        """Waits for a model to have answered since the last repair."""
        return self._ready.wait(timeout_seconds)

    def pids(self) -> dict[str, int]:
        """The process ids of the server and of each stage that runs (the first of several instances)."""
        process = self._process
        if process is None:
            return {}
        return {SERVER: process.pid, **{stub.stage: stub.pid for stub in reversed(process.stubs().values())}}

    def heals(self) -> dict[str, int]:
        """How often each stage was loaded again, and the server (`triton`) restarted."""
        return {SERVER: self._restarts, **{name: stage.heals for name, stage in self._stages.items()}}

    def status(self) -> Status:
        """The last state that was seen, for the health endpoint. Asks nothing."""
        now = time.monotonic()
        stages = {}
        silent = False
        for name, stage in self._stages.items():
            ago = None if stage.answered_at is None else now - stage.answered_at
            silent |= ago is not None and ago > self._limits.recent_seconds
            stages[name] = StageStatus(running=stage.due is None, answered_seconds_ago=ago, heals=stage.heals)
        phase = self._phase()
        return Status(ready=phase == "ready" and not silent, phase=phase, restarts=self._restarts, stages=stages)

    def _phase(self) -> str:
        if self._stopping.is_set():
            return "stopping"
        if self._ready.is_set():
            return "ready"
        if any(stage.due is not None for stage in self._stages.values()):
            return "healing"
        return "starting" if self._question is None else "asking"

    def _start(self) -> None:
        with self._lock:
            if not self._stopping.is_set():
                self._process = self._launch()
        self._stages = {name: _Stage(heals=stage.heals) for name, stage in self._stages.items()}
        self._question = None
        self._started_at = time.monotonic()

    def _tell_blindness(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self._next_blindness:
            self._next_blindness = now + self._limits.max_backoff_seconds
            self._report(f"the supervisor cannot look after the server now: {error}")

    def _watch(self) -> None:
        """One look at everything, a repair of what is broken."""
        process = self._process
        if process is None:
            return
        process.trim_log()
        if (status := process.exit_status()) is not None:
            self._restart(f"the server ended with status {status}")
        elif self._stopped.too_long(process.pid, time.monotonic()):
            self._restart("the server is stopped (SIGSTOP)")
        elif self._question is None:
            self._watch_start(process)
        else:
            for name, stage in self._stages.items():
                self._watch_stage(process, name, stage)
                if self._process is not process:
                    return
            self._watch_question()

    def _watch_start(self, process: TritonProcess) -> None:
        # Their regions are closed to other users before there is anything to read.
        process.stubs()
        if self._api.is_loaded(timeout_seconds=self._limits.probe_seconds):
            for stub in process.stubs().values():
                self._stages[stub.stage].stubs.append(stub)
            self._loading_seconds = time.monotonic() - self._started_at
            self._ask()
        elif time.monotonic() - self._started_at > self._limits.load_seconds:
            self._restart(f"the models were not loaded within {self._limits.load_seconds:.0f} s")

    def _watch_stage(self, process: TritonProcess, name: str, stage: _Stage) -> None:
        now = time.monotonic()
        if stage.due is not None:
            if now >= stage.due:
                self._reload(process, name, stage)
            return
        dead = next((stub for stub in stage.stubs if not process.runs(stub)), None)
        if dead is not None:
            self._ready.clear()
            stage.due = self._backoff[name].next_due(now)
            delay_seconds = max(0.0, stage.due - now)
            self._report(f"{name} died (process {dead.pid}); loading it again in {delay_seconds:.0f} s")
            self._stage_died(name, math.ceil(delay_seconds + self._loading_seconds))
        elif [stub for stub in stage.stubs if self._stopped.too_long(stub.pid, now)]:
            self._report(f"{name} is stopped (SIGSTOP); ending its process")
            _end(stage)
        elif name in PROBES:
            self._probe(name, stage, now)

    def _probe(self, name: str, stage: _Stage, now: float) -> None:
        """Asks a stage now and then; ends its process if it is unhealthy or hangs, so that it is loaded again."""
        if stage.probe is None:
            if now - stage.probed_at >= self._limits.probe_seconds or stage.unhealthy:
                stage.probed_at = now
                stage.probe = in_background(lambda: self._api.stage_answers(name, self._limits.silence_seconds))
            return
        if not stage.probe.done():
            return
        probe, stage.probe = stage.probe, None
        if probe.exception() is None and probe.result():
            stage.answered_at = now
            stage.unhealthy = 0
            return
        stage.unhealthy += 1
        if not self._api.is_live(timeout_seconds=self._limits.recent_seconds):
            self._restart("the server does not answer")
        elif stage.unhealthy >= self._limits.unhealthy_probes or now - stage.probed_at >= self._limits.silence_seconds:
            self._report(f"{name} does not answer ({probe.exception() or 'not healthy'}); ending its process")
            _end(stage)

    def _watch_question(self) -> None:
        """Ready when the question was answered; asks again when it was not."""
        question = self._question
        broken = any(stage.due is not None for stage in self._stages.values())
        if question is None or not question.done() or self._ready.is_set() or broken:
            return
        error = question.exception()
        if error is None:
            self._answered_once = True
            self._ready.set()
        elif not self._answered_once:
            raise ServerError(f"the server was started, and the first question failed: {error}")
        else:
            self._ask()

    def _ask(self) -> None:
        self._question = in_background(lambda: self._api.ask(self._limits.silence_seconds))

    def _reload(self, process: TritonProcess, name: str, stage: _Stage) -> None:
        started_at = time.monotonic()
        others_run = all(other.due is None for other in self._stages.values() if other is not stage)
        loading = in_background(lambda: self._load_again(name, others_run))
        # The stages' processes inherit the server's connections: when it dies, these do not end.
        while process.exit_status() is None and not wait([loading], self._limits.watch_seconds).done:
            process.stubs()
            if self._stopping.is_set():
                return
        if not loading.done():
            self._restart(f"the server ended with status {process.exit_status()} while {name} was loaded again")
            return
        if error := loading.exception():
            self._restart(f"{name} could not be loaded again: {error}")
            return
        stubs = [stub for stub in process.stubs().values() if stub.stage == name]
        self._stages[name] = _Stage(stubs=stubs, heals=stage.heals + 1)
        self._report(f"{name} is loaded again after {time.monotonic() - started_at:.1f} s")
        self._ask()

    def _load_again(self, name: str, others_run: bool) -> None:
        self._api.unload(name, self._limits.load_seconds)
        self._api.load(name, self._limits.load_seconds)
        if others_run and self._api.states(self._limits.recent_seconds).get(ENSEMBLE) != "READY":
            self._api.load(ENSEMBLE, self._limits.load_seconds)

    def _restart(self, reason: str) -> None:
        self._ready.clear()
        if self._stopping.is_set():
            return
        if not self._answered_once:
            raise ServerError(f"{reason} before it had answered")
        now = time.monotonic()
        delay_seconds = max(0.0, self._backoff[SERVER].next_due(now) - now)
        self._report(f"{reason}; starting it again in {delay_seconds:.0f} s")
        with self._lock:
            if self._process is not None:
                self._process.stop(grace_seconds=0)
                self._process = None
        if not self._stopping.wait(delay_seconds):
            self._restarts += 1
            self._start()


def _end(stage: _Stage) -> None:
    """Kills a stage's processes; that they died is noticed like any other death."""
    for stub in stage.stubs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stub.pid, signal.SIGKILL)
