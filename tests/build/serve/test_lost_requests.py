"""A stage's process dies behind the gate: clients whose requests it alone held, in silence, are told so."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2

from build.serve.gate_keeper import GateOptions
from qwen3_vl_client import Client, ServerUnavailable
from tests.build.gate.doors import asked, fetch, string, tell
from tests.support import wire
from tests.support.serving import Server

# Longer than a test waits.
LONG = 600
QUESTION = {"text_input": "hi", "sampling_parameters": json.dumps({"max_tokens": LONG})}


@pytest.fixture(scope="module")
def server(toy_stages):
    with Server(Path(), assemble=toy_stages, gate=GateOptions()) as running:
        yield running


@pytest.fixture(autouse=True)
def healed(server: Server) -> Iterator[None]:
    """After the test every stage runs again, and requests are answered by the same server."""
    triton, gate = server.pids()["triton"], server.deployment.gate.pid
    yield
    server.wait_ready(60)
    assert wire.ask(server.grpc_url, wire.question("hi", sampling={"max_tokens": 1})).finish_reason == "length"
    assert (server.pids()["triton"], server.deployment.gate.pid) == (triton, gate)


def request(**options: float) -> service_pb2.ModelInferRequest:
    """A question that is answered with many words, and what the stages do before."""
    strings = {**QUESTION, "video_options": json.dumps(options)}
    return asked("qwen3_vl", *((name, "BYTES", [1], string(value.encode())) for name, value in strings.items()))


def look() -> service_pb2.ModelInferRequest:
    asking = request()
    asking.model_name = "video_preprocess"
    asking.parameters["look"].bool_param = True
    return asking


def kill_while(server: Server, stage: str, ask) -> object:
    """Kills a stage while `ask` waits for its answer; returns what it returned or raised."""
    heard: list[object] = []

    def run() -> None:
        try:
            heard.append(ask())
        except Exception as error:
            heard.append(error)

    asking = threading.Thread(target=run)
    asking.start()
    time.sleep(1)
    assert not heard
    os.kill(server.pids()[stage], signal.SIGKILL)
    asking.join(90)
    return heard[0]


@pytest.mark.parametrize(
    ("stage", "held"),
    [
        ("video_preprocess", look()),
        # Stage 1 had not told stage 3 of it.
        ("video_preprocess", request(begin_after_seconds=LONG)),
        # Stage 1 does not end it.
        ("decoder", request(deaf_seconds=LONG)),
    ],
    ids=["look", "not announced", "deaf"],
)
def test_grpc_calls_are_ended(server, stage, held):
    error = kill_while(server, stage, lambda: tell(server.grpc_url, held))
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert str(error.details()).startswith(f"{stage} died and is being loaded again: retry in ")


def test_looks_of_the_client_library_are_ended(server):
    with Client(server.grpc_url) as client:
        error = kill_while(server, "video_preprocess", lambda: client.look(question="hi"))
    assert isinstance(error, ServerUnavailable)
    assert "video_preprocess died" in str(error)


def test_a_generate_request_is_answered_with_503(server):
    question = {**QUESTION, "stream": False, "video_options": json.dumps({"begin_after_seconds": LONG})}
    status, body = kill_while(
        server, "video_preprocess", lambda: fetch(server.http_url, "/v2/models/qwen3_vl/generate", question)
    )
    assert (status, "video_preprocess died" in json.loads(body)["error"]) == (503, True)


def test_events_end_with_an_error(server):
    question = {**QUESTION, "video_options": json.dumps({"deaf_seconds": LONG})}
    status, body = kill_while(
        server, "decoder", lambda: fetch(server.http_url, "/v2/models/qwen3_vl/generate_stream", question)
    )
    events = [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line]
    assert (status, events[0]["text_output"]) == (200, "word ")
    assert events[-1]["error"].startswith("decoder died and is being loaded again: retry in ")
