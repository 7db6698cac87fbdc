"""What clients need is answered through the gate as it is without."""

import json
import socket
import threading
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2

from perf.load.traffic import analyzer
from perf.load.traffic.analyzer import Load, Scenario
from perf.load.traffic.target import Target
from qwen3_vl_client import Client
from tests.build.gate.doors import LONG, call, fetch
from tests.support import wire

MODELS = ("qwen3_vl", "decoder", "vision_encoder", "video_preprocess")
GREEDY = {"temperature": 0, "max_tokens": 24, "ignore_eos": True, "return_token_ids": True}


def test_answers_about_a_video_are_the_same(triton, gate, clip):
    inputs = wire.question("What happens?", video=[clip], sampling=GREEDY)
    direct, through = wire.ask(triton.grpc_url, inputs), wire.ask(gate.grpc, inputs)
    assert (through.text, through.token_ids) == (direct.text, direct.token_ids)
    assert through.responses > 1


def test_requests_together_are_all_answered(gate, clip):
    inputs = [wire.question("What?", video=[clip], sampling=GREEDY), wire.question("Hello", sampling=GREEDY)] * 8
    answers = wire.ask_together(gate.grpc, inputs)
    assert all(isinstance(answer, wire.Answer) and len(answer.token_ids) == 24 for answer in answers), answers


def test_one_stream_carries_many_requests_and_a_refused_one(gate):
    responses: list = []
    ended = threading.Semaphore(0)

    def heard(result, error) -> None:
        responses.append((result, error))
        if error is not None or result.get_response().parameters["triton_final_response"].bool_param:
            ended.release()

    with tritonclient.grpc.InferenceServerClient(gate.grpc) as client:
        client.start_stream(heard)
        for model in ("qwen3_vl", "vision_encoder", "qwen3_vl"):
            client.async_stream_infer(model, wire.question("Hello", sampling=GREEDY), enable_empty_final_response=True)
            assert ended.acquire(timeout=60)
    assert [error.message() for _, error in responses if error is not None] == [
        "invalid_argument: the model 'vision_encoder' is closed to clients: qwen3_vl is open, decoder with the input"
        " stop, and video_preprocess with the parameter look"
    ]


def test_the_client_library_asks_and_looks(gate, clip):
    with Client(gate.grpc) as client:
        answer = client.ask(clip, "What happens?", sampling={"max_tokens": 4, "ignore_eos": True})
        assert answer.usage.completion_tokens == 4
        assert client.look(clip, "What happens?").prompt_tokens > 0


def test_stop_ends_a_request(gate):
    request = wire.Request(gate.grpc, wire.question("Go on", sampling=LONG))
    responses = iter(request)
    next(responses)
    assert wire.stop(gate.grpc, request.id) == "cancelled"
    assert [result.as_numpy("finish_reason")[0] for result in responses][-1] == b"cancelled"
    request.close()


def test_generate_answers_in_one_piece_and_in_events(triton, gate):
    question = {"text_input": "Hello", "sampling_parameters": json.dumps(GREEDY)}
    direct, through = (
        json.loads(fetch(url, "/v2/models/qwen3_vl/generate", {**question, "stream": False})[1])
        for url in (triton.http_url, gate.http)
    )
    assert through["text_output"] == direct["text_output"]
    status, events = fetch(gate.http, "/v2/models/qwen3_vl/versions/1/generate_stream", question)
    texts = [json.loads(line.removeprefix("data: "))["text_output"] for line in events.splitlines() if line]
    assert status == 200
    assert len(texts) > 1
    assert "".join(texts) == direct["text_output"]


def test_events_come_as_they_are_made(gate):
    """The first is there while most of the answer is not."""
    where = urlsplit(gate.http)
    body = json.dumps({"text_input": "Go on", "sampling_parameters": json.dumps(LONG)}).encode()
    head = f"POST /v2/models/qwen3_vl/generate_stream HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(body)}"
    with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        heard = b""
        while b"data: " not in heard:
            heard += connection.recv(4096)
        assert wire.engine_state(gate.grpc)["sessions"] == 1
    wire.wait_idle(gate.grpc, seconds=15)


def test_stage_3_tells_its_state_and_stops_over_http(gate):
    status, body = fetch(gate.http, "/v2/models/decoder/generate", {"stop": False})
    assert status == 200
    assert json.loads(json.loads(body)["usage"])["sessions"] == 0
    status, body = fetch(gate.http, "/v2/models/decoder/generate_stream", {"stop": True, "id": "nobody-has-this-id"})
    assert (status, '"finish_reason":""' in body) == (200, True)


def test_tools_learn_what_is_served(triton, gate):
    """The same at both doors. perf_analyzer asks for each stage's configuration, and for all statistics at once."""
    with tritonclient.grpc.InferenceServerClient(gate.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.get_server_metadata().name == "triton"
        for model in MODELS:
            assert client.is_model_ready(model)
            assert client.get_model_metadata(model).name == model
            assert client.get_model_config(model).config.name == model
            assert client.get_inference_statistics(model).model_stats[0].name == model
        everything = client.get_inference_statistics().model_stats
    with grpc.insecure_channel(gate.grpc) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"
    with tritonclient.http.InferenceServerClient(gate.http.removeprefix("http://")) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata("qwen3_vl") == json.loads(fetch(triton.http_url, "/v2/models/qwen3_vl")[1])
        for model in MODELS:
            assert client.is_model_ready(model)
            assert client.get_model_metadata(model)["name"] == model
            assert client.get_model_config(model)["name"] == model
            assert client.get_inference_statistics(model)["model_stats"][0]["name"] == model
        every = {statistics["name"] for statistics in client.get_inference_statistics()["model_stats"]}
    assert every == {statistics.name for statistics in everything} == set(MODELS)


def test_perf_analyzer_measures_through_the_gate(gate, tmp_path):
    data = [{"text_input": analyzer.strings("Hello"), "sampling_parameters": analyzer.strings('{"max_tokens": 2}')}]
    target = Target(gate.grpc, gate.http, gate.metrics)
    profile = analyzer.measure(Scenario("gate", "qwen3_vl", data), Load(concurrency=2), 4, target, tmp_path)
    assert (profile.errors, len(profile.total) >= 4) == (0, True)


def test_prometheus_reads_metrics_and_nothing_else(gate):
    status, body = fetch(gate.metrics, "/metrics")
    assert status == 200
    assert "qwen3_vl_kv_blocks" in body
    assert fetch(gate.metrics, "/v2")[0] == 404
    assert fetch(gate.metrics, "/metrics", headers={"Host": "rebound.example"})[0] == 421


def test_errors_of_the_server_travel(triton, gate):
    unknown = service_pb2.ModelMetadataRequest(name="qwen3_vl", version="9").SerializeToString()
    with pytest.raises(grpc.RpcError) as direct:
        call(triton.grpc_url, "ModelMetadata", unknown)
    with pytest.raises(grpc.RpcError) as through:
        call(gate.grpc, "ModelMetadata", unknown)
    assert (through.value.code(), through.value.details()) == (direct.value.code(), direct.value.details())
    bad = {"text_input": "Hello", "video_options": '{"fps": -1}', "stream": False}
    assert fetch(gate.http, "/v2/models/qwen3_vl/generate", bad) == fetch(
        triton.http_url, "/v2/models/qwen3_vl/generate", bad
    )


def test_infer_is_refused_with_what_to_use_instead(gate):
    """Triton itself does not answer it for a model that answers in pieces."""
    text = tritonclient.http.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"Hello"], dtype=object))
    with (
        tritonclient.http.InferenceServerClient(gate.http.removeprefix("http://")) as client,
        pytest.raises(tritonclient.http.InferenceServerException, match="generate_stream"),
    ):
        client.infer("qwen3_vl", [text])
    with pytest.raises(grpc.RpcError, match="ModelStreamInfer"):
        call(gate.grpc, "ModelInfer", service_pb2.ModelInferRequest(model_name="qwen3_vl").SerializeToString())
