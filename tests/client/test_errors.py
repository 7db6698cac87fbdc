import grpc
import grpc.aio
import pytest

from qwen3_vl_client import (
    Cancelled,
    InternalError,
    InvalidRequest,
    NotFound,
    Qwen3VLError,
    ResourceExhausted,
    ServerUnavailable,
    Timeout,
    errors,
)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("invalid_argument: fps is -1", InvalidRequest, "fps is -1"),
        ("in ensemble 'qwen3_vl', not_found: video_uri 'a' does not exist", NotFound, "video_uri 'a' does not exist"),
        ("in ensemble 'qwen3_vl', resource_exhausted: full", ResourceExhausted, "full"),
        ("[request id: 7f] in ensemble 'a', in ensemble 'b', unavailable: x: y", ServerUnavailable, "x: y"),
        ("deadline_exceeded: two\nlines", Timeout, "two\nlines"),
        ("cancelled: gone", Cancelled, "gone"),
        ("internal: step failed, invalid_argument: inside", InternalError, "step failed, invalid_argument: inside"),
        ("expected 2 inputs, invalid_argument: x", InternalError, "expected 2 inputs, invalid_argument: x"),
        ("", InternalError, "the server failed and gave no reason"),
    ],
)
def test_message_tells_the_class(text: str, kind: type[Qwen3VLError], message: str) -> None:
    error = errors.from_message(text, "7f")
    assert type(error) is kind
    assert error.message == message
    assert error.request_id == "7f"
    assert str(error) == f"{message} (request 7f)"


@pytest.mark.parametrize(
    "text",
    [
        "Request for unknown model: 'qwen3_vl' has no available versions",
        "in ensemble 'qwen3_vl', Stub process 'decoder_0_0' is not healthy.",
    ],
)
def test_model_that_is_away_is_unavailable(text: str) -> None:
    error = errors.from_message(text, "7f")
    assert type(error) is ServerUnavailable
    assert text in error.message


def test_errors_are_also_the_builtin_ones() -> None:
    assert issubclass(Timeout, TimeoutError)
    assert issubclass(InvalidRequest, ValueError)


def test_a_full_server_says_when_to_come_back() -> None:
    full = "in ensemble 'qwen3_vl', resource_exhausted: 256 requests are waiting and no more may; retry in 12 s"
    error = errors.from_message(full, "7f")
    assert isinstance(error, ResourceExhausted)
    assert error.retry_after_seconds == 12
    assert ResourceExhausted("256 requests are being served").retry_after_seconds is None


def test_a_stage_that_is_loaded_again_is_not_taken_for_a_server_that_is_not_there() -> None:
    said = "decoder died and is being loaded again: retry in 3 s"
    nothing = grpc.aio.Metadata()
    failed = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details=said)
    error = errors.from_rpc(failed, "7f", "host:8001", answering=False)
    assert type(error) is ServerUnavailable
    assert error.message == said
