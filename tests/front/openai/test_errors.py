"""Every error of the library has its status, and tells when to come back where that helps."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from qwen3_vl_client import (
    Cancelled,
    InternalError,
    InvalidRequest,
    NotFound,
    Qwen3VLError,
    ResourceExhausted,
    ServerUnavailable,
    Timeout,
)
from qwen3_vl_client.front import errors
from qwen3_vl_client.uploads import QuotaExceeded


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry_after"),
    [
        (InvalidRequest("wrong"), 400, "invalid_request_error", None),
        (NotFound("nothing"), 404, "invalid_request_error", None),
        (QuotaExceeded("no room"), 413, "invalid_request_error", None),
        (ResourceExhausted("full"), 429, "rate_limit_error", "1"),
        (ResourceExhausted("full; retry in 12 s"), 429, "rate_limit_error", "12"),
        (ServerUnavailable("gone"), 503, "server_error", "1"),
        (Cancelled("ended"), 503, "server_error", "1"),
        (Timeout("late"), 504, "server_error", None),
        (InternalError("broken"), 500, "server_error", None),
        (RuntimeError("unexpected, with a secret"), 500, "server_error", None),
    ],
)
def test_statuses(error: Exception, status: int, kind: str, retry_after: str | None) -> None:
    app = FastAPI()
    errors.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    response = TestClient(app, raise_server_exceptions=False).get("/")
    told = response.json()["error"]
    assert (response.status_code, told["type"]) == (status, kind)
    assert response.headers.get("retry-after") == retry_after
    assert (str(error) in told["message"]) == isinstance(error, Qwen3VLError)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("sampling_parameters.top_k is -2; an integer from -1 to 2147483647 is accepted", "top_k"),
        ("video_options.fps is -1; a number above 0 and at most 60 is accepted", "fps"),
        ("messages[1].role is 'system'; accepted for the first message only", "messages[1].role"),
        ("the prompt is too long", None),
    ],
)
def test_the_field_that_is_wrong(message: str, param: str | None) -> None:
    described = errors.describe(InvalidRequest(message, request_id="abc"))
    assert (described.param, described.code) == (param, "invalid_argument")
    assert described.message == f"{message} (request abc)"
