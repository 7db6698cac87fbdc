"""Processes that somebody stops (SIGSTOP) answer nobody: they are ended, and what they did goes on elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from build.serve.gate_keeper import GateOptions
from build.serve.supervisor.stopped import Stopped
from tests.support import wire
from tests.support.processes import is_gone
from tests.support.serving import Server

SHORT = wire.question("hi", sampling={"max_tokens": 1})


@pytest.fixture(scope="module")
def server(toy_stages):
    """With the limits of every server: one that hangs without being stopped is given two minutes."""
    with Server(Path(), assemble=toy_stages, gate=GateOptions()) as running:
        yield running


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["vision_encoder", "video_preprocess", "decoder", "triton"])
def test_a_process_of_the_server_is_ended_and_started_again(server, name):
    """It is busy: what asks whether it answers waits behind other requests."""
    pid, heals = server.pids()[name], server.heals()[name]
    words = wire.question("hi", sampling={"max_tokens": 600})
    asking = threading.Thread(target=wire.ask_together, args=(server.grpc_url, [words] * 4))
    asking.start()
    time.sleep(1)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: server.heals()[name] == heals + 1)
    server.wait_ready(60)
    asking.join()
    assert is_gone(pid)
    assert wire.ask(server.grpc_url, SHORT).finish_reason == "length"


def test_the_gate_is_ended_and_opened_again(server):
    pid = server.deployment.gate.pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: server.deployment.gate.pid != pid and server.deployment.status().ready)
    assert is_gone(pid)
    assert wire.ask(server.grpc_url, SHORT).finish_reason == "length"


def test_a_moment_is_not_too_long():
    """One that is told to go on begins anew."""
    stopped = Stopped(patience_seconds=5)
    with subprocess.Popen(["sleep", "60"]) as process:
        for begin in (0.0, 100.0):
            process.send_signal(signal.SIGSTOP)
            until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
            assert [stopped.too_long(process.pid, begin + seconds) for seconds in (0, 4.9)] == [False, False]
            process.send_signal(signal.SIGCONT)
            until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED)
            assert not stopped.too_long(process.pid, begin + 5.1)
        process.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        assert [stopped.too_long(process.pid, 200.0 + seconds) for seconds in (0, 5.1, 5.2)] == [False, True, False]
        process.kill()
    assert not stopped.too_long(process.pid, 300.0)
