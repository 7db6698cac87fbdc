"""A server behind its gate: nobody goes around it, and it is opened again when it has ended."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from build.serve.doors import warnings
from build.serve.gate_keeper import GateOptions
from build.serve.server.triton import Endpoints
from tests.build.gate.doors import fetch
from tests.support import wire
from tests.support.serving import Server


@pytest.fixture(scope="module")
def server(toy_stages):
    with Server(Path(), assemble=toy_stages, gate=GateOptions()) as running:
        yield running


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def ask(server: Server) -> wire.Answer:
    return wire.ask(server.grpc_url, wire.question("hi", sampling={"max_tokens": 1}))


def test_answers_come_through_the_gate(server):
    assert ask(server).finish_reason == "length"
    assert status(f"{server.health_url}/ready") == 200
    assert status(f"{server.http_url}/v2/health/ready") == 200
    assert status(f"{server.metrics_url}/metrics") == 200


@pytest.mark.parametrize("path", ["v2/health/live", "v2/models/qwen3_vl", "v2/models/qwen3_vl/config"])
def test_triton_itself_answers_nobody_over_http(server, path):
    triton = server.deployment.triton
    assert status(f"{triton.url(triton.http)}/{path}") == 403


def test_triton_itself_answers_nobody_over_grpc(server):
    with grpc.insecure_channel(server.deployment.triton.grpc_target) as channel:
        triton = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="restricted"):
            triton.ServerLive(service_pb2.ServerLiveRequest(), timeout=10)
        # By the stub: a client's stream may be refused before its request is sent.
        asked = service_pb2.ModelInferRequest(model_name="qwen3_vl")
        with pytest.raises(grpc.RpcError, match="restricted"):
            list(triton.ModelStreamInfer(iter([asked]), timeout=10))


def test_a_killed_gate_is_opened_again(server):
    before, pids = server.deployment.gate.pid, server.pids()
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while server.deployment.gate.pid == before or status(f"{server.health_url}/ready") != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ask(server).finish_reason == "length"
    assert server.pids() == pids
    assert [line for line in server.reports if "the gate ended with status -9" in line]


def test_events_end_with_an_error_when_the_server_dies(server):
    heard: list[tuple[int, str]] = []
    question = {"text_input": "hi", "sampling_parameters": '{"max_tokens": 600}'}
    path = "/v2/models/qwen3_vl/generate_stream"
    asking = threading.Thread(target=lambda: heard.append(fetch(server.http_url, path, question)))
    asking.start()
    time.sleep(1)
    os.kill(server.pids()["triton"], signal.SIGKILL)
    asking.join()
    ((code, body),) = heard
    events = [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line]
    assert (code, events[0]["text_output"]) == (200, "word ")
    assert events[-1]["error"].startswith("the server behind the gate does not answer")
    server.wait_ready(60)


def test_an_address_that_others_reach_is_told():
    assert not list(warnings(Endpoints("127.0.0.1", 1, 2, 3, 4), None))
    (gated,) = warnings(Endpoints("0.0.0.0", 1, 2, 3, 4), GateOptions())
    assert "0.0.0.0 is reachable by others" in gated
    assert "SECURITY.md" in gated
    assert "crashed" in list(warnings(Endpoints("::", 1, 2, 3, 4), None))[1]
