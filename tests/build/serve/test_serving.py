"""The real Triton with toy stages: processes are killed and stopped, and what was promised is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from build.serve.server.triton import STAGES, free_ports
from build.serve.supervisor.supervisor import Limits, ServerError
from tests.support import wire
from tests.support.processes import descendants, is_gone, shared_memory_of
from tests.support.serving import Server

# A stage that hangs is found out soon; toys are never busy.
LIMITS = Limits(probe_seconds=0.5, silence_seconds=5.0)


@pytest.fixture(scope="module")
def server(toy_stages):
    with Server(Path(), assemble=toy_stages, limits=LIMITS) as running:
        yield running


def ready(server: Server) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(f"{server.health_url}/ready", timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask(server: Server, words: int, **options) -> wire.Answer:
    return wire.ask(server.grpc_url, wire.question("hi", sampling={"max_tokens": words}, options=options))


def until(holds, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_answers_and_says_that_it_is_ready(server):
    assert ask(server, 3).text == "word word word "
    status, seen = ready(server)
    assert (status, seen["ready"], seen["phase"]) == (200, True, "ready")
    assert set(seen["stages"]) == set(STAGES)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{server.health_url}/other", timeout=5)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_stage_is_healed_and_its_requests_end(server, stage):
    before, heals = server.pids(), server.heals()
    answers: list = []
    requests = [wire.question("hi", sampling={"max_tokens": 60})] * 4
    asking = threading.Thread(target=lambda: answers.extend(wire.ask_together(server.grpc_url, requests)))
    asking.start()
    time.sleep(1)
    os.kill(before[stage], signal.SIGKILL)
    until(lambda: ready(server)[0] == 503)
    asking.join(30)
    assert [type(answer) for answer in answers] == [wire.RequestError] * 4
    server.wait_ready(30)
    after = server.pids()
    assert {name for name in before if after[name] != before[name]} == {stage}
    assert server.heals() == {name: count + (name == stage) for name, count in heals.items()}
    assert ask(server, 1).finish_reason == "length"


def test_requests_that_stage_1_had_not_announced_end(server):
    """One is in the hands of the process that dies, others wait for it: Triton answers all of them."""
    heals = server.heals()["video_preprocess"]
    answers: list = []
    requests = [wire.question("hi", sampling={"max_tokens": 1}, options={"announce_after_seconds": 60})] * 3
    asking = threading.Thread(target=lambda: answers.extend(wire.ask_together(server.grpc_url, requests)))
    asking.start()
    time.sleep(1)
    os.kill(server.pids()["video_preprocess"], signal.SIGKILL)
    asking.join(30)
    assert ["is not healthy" in str(answer) for answer in answers] == [True] * 3
    until(lambda: server.heals()["video_preprocess"] == heals + 1)
    server.wait_ready(30)


def test_stage_that_hangs_is_ended_and_healed(server):
    before, heals = server.pids(), server.heals()["decoder"]
    os.kill(before["decoder"], signal.SIGSTOP)
    until(lambda: server.heals()["decoder"] == heals + 1)
    server.wait_ready(30)
    assert is_gone(before["decoder"])
    assert ask(server, 1).finish_reason == "length"


def test_two_stages_die_at_once(server):
    before = server.pids()
    for stage in ("decoder", "video_preprocess"):
        os.kill(before[stage], signal.SIGKILL)
    server.wait_ready(60)
    assert ask(server, 1).finish_reason == "length"


def test_killed_server_is_restarted(server):
    before = server.pids()
    os.kill(before["triton"], signal.SIGKILL)
    until(lambda: server.heals()["triton"] == 1)
    server.wait_ready(30)
    assert not set(before.values()) & set(server.pids().values())
    until(lambda: all(is_gone(pid) for pid in before.values()))
    assert ask(server, 1).finish_reason == "length"


def test_a_supervisor_without_file_handles_goes_on(server):
    """It sees nothing meanwhile, says so, and mends what broke as soon as it can."""
    heals = server.heals()["decoder"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        until(lambda: any("cannot look after the server now" in line for line in server.reports))
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.kill(server.pids()["decoder"], signal.SIGKILL)
    until(lambda: server.heals()["decoder"] == heals + 1)
    server.wait_ready(30)
    assert ask(server, 1).finish_reason == "length"


def test_server_that_cannot_start_says_why(toy_stages):
    with pytest.raises(ServerError, match="this engine is broken"):
        Server(Path(), {"decoder.engine": "broken"}, assemble=toy_stages).__enter__()


def test_nothing_is_left(toy_stages):
    with Server(Path(), assemble=toy_stages) as server:
        pids = server.pids()
        os.kill(pids["decoder"], signal.SIGKILL)
        regions = shared_memory_of([pids[stage] for stage in STAGES[1:]])
        assert len(regions) == len(STAGES) - 1
    assert all(is_gone(pid) for pid in pids.values())
    assert not [region for region in regions if region.exists()]
    assert not server.repository.parent.exists()


@pytest.fixture
def serving(tmp_path):
    """`python -m build.serve` with toy stages as a process of its own, once it is ready."""
    (tmp_path / "config.json").write_text("{}")
    http, grpc, metrics, health = free_ports("127.0.0.1", 4)
    ports = f"--http-port {http} --grpc-port {grpc} --metrics-port {metrics} --health-port {health}".split()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.build.serve.toy_serve", "--model", tmp_path]
    command += ["--repository", tmp_path / "repository", *ports]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if "Ctrl-C" in line:
            break
    yield process, grpc
    process.terminate()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything(serving, tmp_path, number):
    """In the middle of an answer: no process, no FIFO and no shared memory stays."""
    process, grpc = serving
    children = descendants(process.pid)
    # The gate, Triton and its stages.
    assert len(children) == 2 + len(STAGES)
    request = wire.Request(f"127.0.0.1:{grpc}", wire.question("hi", sampling={"max_tokens": 1000}))
    next(iter(request))
    process.send_signal(number)
    assert process.wait(20) == 0
    request.close()
    assert all(is_gone(pid) for pid in children)
    assert not list(tmp_path.glob("qwen3-vl-*"))
    assert "ended" in process.stdout.read()


def test_a_supervisor_that_is_killed_leaves_no_server(serving):
    process, _ = serving
    children = descendants(process.pid)
    process.kill()
    until(lambda: all(is_gone(pid) for pid in children))


def test_port_that_is_taken_is_named(serving, tmp_path):
    _, grpc = serving
    command = [sys.executable, "-m", "build.serve", "--model", tmp_path, "--grpc-port", str(grpc)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert f"port {grpc} of 127.0.0.1 cannot be used" in second.stderr
    assert "GRPC_PORT=PORT" in second.stderr
