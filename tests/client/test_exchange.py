"""How long is waited for, without a server."""

import json

import pytest
from tritonclient.grpc import service_pb2

from qwen3_vl_client import Timeout, Timeouts
from qwen3_vl_client import request as requests
from qwen3_vl_client.exchange import Exchange


def exchange(silence: float = 50, total: float = 500) -> Exchange:
    return Exchange(requests.ask(None, "q", None, None, None, {}, {}), "host:1", Timeouts(silence=silence, total=total))


def response(**outputs: str) -> service_pb2.ModelStreamInferResponse:
    made = service_pb2.ModelStreamInferResponse()
    for name, text in outputs.items():
        made.infer_response.outputs.add(name=name, datatype="BYTES", shape=[1])
        made.infer_response.raw_output_contents.append(len(text.encode()).to_bytes(4, "little") + text.encode())
    return made


def test_silence_does_not_count_while_uploading() -> None:
    state = exchange()
    assert 50 < state.wait_seconds() <= 500
    state.uploaded()
    assert 40 < state.wait_seconds() <= 50


def test_complete_answer_waits_no_longer_than_a_moment_for_the_end() -> None:
    state = exchange()
    state.uploaded()
    state.receive(response(text_output="It ", finish_reason=""))
    assert state.answer is None
    state.receive(response(text_output="rains", finish_reason="stop", usage=json.dumps({"prompt_tokens": 7})))
    assert state.wait_seconds() <= 1
    assert not state.ended
    state.timed_out()
    assert state.ended
    assert state.answer is not None
    assert (state.answer.text, state.answer.usage.prompt_tokens) == ("It rains", 7)


def test_error_after_the_answer_is_no_error() -> None:
    state = exchange()
    state.receive(response(text_output="It rains", finish_reason="stop", usage="{}"))
    state.receive(service_pb2.ModelStreamInferResponse(error_message="internal: late"))
    assert state.ended
    assert state.answer is not None


def test_time_out_without_an_answer_leaves_the_request_to_be_stopped() -> None:
    state = exchange()
    state.uploaded()
    with pytest.raises(Timeout):
        state.timed_out()
    assert not state.ended
