"""The decisions of the supervisor, with a server that is only played."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from build.serve.server.api import ApiError
from build.serve.server.process import Stub
from build.serve.server.triton import ENSEMBLE, STAGES
from build.serve.supervisor.backoff import Backoff
from build.serve.supervisor.supervisor import Limits, ServerError, Supervisor

LIMITS = Limits(watch_seconds=0.01, probe_seconds=0.02, silence_seconds=0.5, max_backoff_seconds=0.2)


class PlayedServer:
    """A server process and its API in one: what it says is set by the test."""

    pid = os.getpid()

    def __init__(self) -> None:
        self.running = dict.fromkeys(STAGES, 1)
        self.status: int | None = None
        self.calls: list[str] = []
        self.question: Callable[[], None] = lambda: None
        self.unhealthy: set[str] = set()
        self.load_error: str | None = None
        self.live = True
        self.launched = 0
        self.hangs_in: str | None = None
        self.hanging = threading.Event()

    def launch(self) -> PlayedServer:
        self.launched += 1
        self.status = None
        return self

    def exit_status(self) -> int | None:
        return self.status

    def stubs(self) -> dict[int, Stub]:
        # No process has these ids: nothing is hit when one of them is ended.
        stubs = [Stub(stage, 2**22 + 8 * n + STAGES.index(stage), "") for stage, n in self.running.items() if n]
        return {stub.pid: stub for stub in stubs}

    def trim_log(self) -> None:
        """There is none."""

    def runs(self, stub: Stub) -> bool:
        return stub in self.stubs().values()

    def stop(self, grace_seconds: float) -> None:
        self.status = -9

    def is_loaded(self, timeout_seconds: float) -> bool:
        return True

    def is_live(self, timeout_seconds: float) -> bool:
        return self.live

    def states(self, timeout_seconds: float) -> dict[str, str]:
        return {ENSEMBLE: "READY"}

    def unload(self, model: str, timeout_seconds: float) -> None:
        self.calls.append(f"unload {model}")

    def load(self, model: str, timeout_seconds: float) -> None:
        self.calls.append(f"load {model}")
        if self.load_error:
            raise ApiError(self.load_error)
        if model == self.hangs_in:
            self.hanging.set()
            threading.Event().wait(60)
        self.running[model] = 2

    def stage_answers(self, stage: str, timeout_seconds: float) -> bool:
        return stage not in self.unhealthy

    def ask(self, timeout_seconds: float) -> None:
        self.calls.append("ask")
        self.question()


class Run:
    """A supervisor of a played server, running in a thread."""

    def __init__(self, server: PlayedServer) -> None:
        self.reports: list[str] = []
        self.supervisor = Supervisor(server.launch, server, self.reports.append, LIMITS)
        self.error: ServerError | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except ServerError as error:
            self.error = error

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, self.reports
            time.sleep(0.005)


@pytest.fixture
def server():
    return PlayedServer()


@pytest.fixture
def run(server):
    running = Run(server)
    assert running.supervisor.wait_ready(10)
    yield running
    running.supervisor.stop()
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_dead_stage_is_loaded_again_and_asked(server, run):
    server.calls.clear()
    server.running["vision_encoder"] = 0
    run.until(lambda: run.supervisor.heals()["vision_encoder"] == 1)
    run.until(run.supervisor._ready.is_set)
    assert server.calls == ["unload vision_encoder", "load vision_encoder", "ask"]
    assert server.launched == 1
    assert "vision_encoder died" in run.reports[0]


def test_not_ready_while_a_question_waits(server, run):
    """A busy engine answers late: that is neither ready nor a reason to repair anything."""
    answer = threading.Event()
    server.question = answer.wait
    server.running["decoder"] = 0
    run.until(lambda: run.supervisor.status().phase == "asking")
    time.sleep(0.2)
    assert not run.supervisor.status().ready
    assert run.supervisor.heals() == {"triton": 0, "decoder": 1, "vision_encoder": 0, "video_preprocess": 0}
    answer.set()
    run.until(lambda: run.supervisor.status().ready)


def test_failed_question_is_asked_again(server, run):
    errors = iter([ApiError("busy"), ApiError("busy")])

    def question():
        for error in errors:
            raise error

    server.question = question
    server.running["decoder"] = 0
    run.until(lambda: run.supervisor.heals()["decoder"] == 1 and run.supervisor.status().ready)
    assert server.calls.count("ask") == 4


def test_stage_that_cannot_be_loaded_restarts_the_server(server, run):
    server.load_error = "no memory"
    server.running["decoder"] = 0
    run.until(lambda: run.supervisor.heals()["triton"] == 1)
    assert any("decoder could not be loaded again: no memory" in line for line in run.reports)
    assert server.launched == 2


def test_server_that_ends_while_it_loads_a_stage_is_started_again(server, run):
    """The connection stays open: the other stages' processes have inherited it."""
    server.hangs_in = "decoder"
    server.running["decoder"] = 0
    assert server.hanging.wait(10)
    server.running["decoder"] = 1
    server.status = -6
    run.until(lambda: server.launched == 2 and run.supervisor.status().ready)
    assert any("ended with status -6 while decoder was loaded again" in line for line in run.reports)


def test_server_that_ended_is_started_again(server, run):
    server.status = -11
    run.until(lambda: run.supervisor.heals()["triton"] == 1)
    run.until(lambda: run.supervisor.status().ready)
    assert "the server ended with status -11" in run.reports[0]


def test_unhealthy_stage_is_ended(server, run):
    server.unhealthy.add("decoder")
    run.until(lambda: any("decoder does not answer" in line for line in run.reports))


def test_server_that_does_not_answer_is_restarted(server, run):
    server.live = False
    server.unhealthy.add("decoder")
    run.until(lambda: run.supervisor.heals()["triton"] == 1)
    assert "the server does not answer" in run.reports[0]


def test_first_start_that_fails_is_an_error(server):
    server.question = lambda: (_ for _ in ()).throw(ApiError("internal: no weights"))
    run = Run(server)
    run.thread.join(10)
    assert "internal: no weights" in str(run.error)
    assert server.launched == 1


def test_first_start_that_ends_is_an_error(server):
    server.launch = lambda: server
    server.status = 1
    run = Run(server)
    run.thread.join(10)
    assert "ended with status 1 before it had answered" in str(run.error)


def test_backoff_doubles_and_is_forgiven():
    backoff = Backoff(max_seconds=10)
    now = 1000.0
    delays = []
    for _ in range(7):
        due = backoff.next_due(now)
        delays.append(due - now)
        now = due + 1
    assert delays == [0, 1, 2, 4, 8, 10, 10]
    assert backoff.next_due(now + 60) == now + 60
