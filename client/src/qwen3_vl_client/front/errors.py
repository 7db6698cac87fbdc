"""Every error with its status, as OpenAI's clients and the page read it: `{"error": {"message", "type", "param",
"code"}}`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from ..errors import (
    Cancelled,
    InternalError,
    InvalidRequest,
    NotFound,
    Qwen3VLError,
    ResourceExhausted,
    ServerUnavailable,
    Timeout,
)
from ..uploads import DiskFull, QuotaExceeded
from .http.bodies import InvalidBodyError
from .http.disconnects import CLIENT_CLOSED_REQUEST, ClientGoneError
from .http.refusals import RefusedError, shortened

_log = logging.getLogger(__name__)

# The most special class first.
_STATUSES: Sequence[tuple[type[Qwen3VLError], HTTPStatus]] = (
    (InvalidRequest, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (DiskFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (QuotaExceeded, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ResourceExhausted, HTTPStatus.TOO_MANY_REQUESTS),
    (ServerUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (Cancelled, HTTPStatus.SERVICE_UNAVAILABLE),
    (Timeout, HTTPStatus.GATEWAY_TIMEOUT),
    (InternalError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
# Where the server gives no estimate of its own.
_RETRY_AFTER_SECONDS = 1
# The server's own words for an option: `sampling_parameters.top_p is 2; …`.
_SERVER_PARAMETER = re.compile(r"(?:sampling_parameters|video_options)\.(\w+)|(messages[\w.\[\]]*)")


class ErrorDetails(BaseModel):
    """An error. `type` tells whose fault it is, `param` the field that is wrong, `code` the kind of error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is none."""

    error: ErrorDetails


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: what its errors look like."""
    return {int(status): {"model": ErrorBody, "description": status.phrase} for status in statuses}


GENERATION_ERRORS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
"""The errors that may come instead of an answer that is generated."""


def describe(error: Qwen3VLError) -> ErrorDetails:
    """The client library's error in OpenAI's words."""
    message = f"{error.message} (request {error.request_id})" if error.request_id else error.message
    return _details(_status(error), message, _parameter(error.message), error.code)


def install(app: FastAPI) -> None:
    """Makes every error of `app` one of `ErrorBody`."""
    app.add_exception_handler(RefusedError, _answer_refusal)
    app.add_exception_handler(InvalidBodyError, _answer_invalid_body)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(ClientGoneError, _answer_nobody)
    app.add_exception_handler(Qwen3VLError, _answer_library_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_unexpected)


def _status(error: Qwen3VLError) -> HTTPStatus:
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def _parameter(message: str) -> str | None:
    match = _SERVER_PARAMETER.match(message)
    return match and (match[1] or match[2])


def _details(status: HTTPStatus, message: str, param: str | None, code: str | None) -> ErrorDetails:
    kind = _TYPES.get(status, "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error")
    return ErrorDetails(message=shortened(message), type=kind, param=param and shortened(param), code=code)


def _response(status: HTTPStatus, details: ErrorDetails, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorBody(error=details).model_dump(), status, headers=headers)


def answer(refusal: RefusedError) -> JSONResponse:
    """The response to a refusal."""
    details = _details(refusal.status, refusal.message, refusal.param, refusal.code)
    return _response(refusal.status, details, refusal.headers)


async def _answer_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return answer(error)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """The client went away while it was sending, or before it had its answer."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _answer_library_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Qwen3VLError)
    status = _status(error)
    headers = {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["retry-after"] = str(getattr(error, "retry_after_seconds", None) or _RETRY_AFTER_SECONDS)
    return _response(status, describe(error), headers)


async def _answer_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Tells the first of the errors of a request's parameters: the others often follow from it."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _invalid(first, _place(first["loc"][1:], None))


async def _answer_invalid_body(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InvalidBodyError)
    return _invalid(error.first, _place(error.first["loc"], error.body))


def _invalid(error: Mapping[str, Any], param: str) -> JSONResponse:
    if error["type"] == "extra_forbidden":
        message = f"{param} is not a field that is accepted here"
    else:
        message = f"{param or 'the body'}: {error['msg']}"
    return _response(
        HTTPStatus.BAD_REQUEST, _details(HTTPStatus.BAD_REQUEST, message, param or None, "invalid_argument")
    )


def _place(steps: Sequence[str | int], body: Any) -> str:
    """Where in the body an error is, `messages[0].content`. Pydantic's steps also name the kinds that it tried, which
    the body does not have; a field that is missing is the last step."""
    place = ""
    for step in steps:
        if isinstance(body, list) and isinstance(step, int):
            place, body = f"{place}[{step}]", body[step]
        elif isinstance(body, dict) and step in body:
            place, body = f"{place}.{step}", body[step]
        elif step is steps[-1] and isinstance(body, dict):
            place = f"{place}.{step}"
    return place.lstrip(".")


async def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(request)):
        headers["allow"] = ", ".join(methods)
    return _response(status, _details(status, message, None, status.name.lower()), headers)


def _methods(request: Request) -> list[str]:
    """The methods that a path of the API accepts. Starlette tells those of the first route only that has the path."""
    return [
        method.upper()
        for path, operations in request.app.openapi()["paths"].items()
        if compile_path(path)[0].match(request.url.path)
        for method in operations
    ]


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    # Starlette logs the error with its traceback.
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _response(status, _details(status, "the server failed; its log says why", None, "internal"))
