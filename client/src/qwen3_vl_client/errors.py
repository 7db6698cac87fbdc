"""The errors of a request, and how the server's messages are read.

A message of the server starts with the name of a gRPC status code in lower case, `invalid_argument: fps is -1; …`.
Triton puts `in ensemble 'qwen3_vl', ` before it.
"""

# The names say what happened, as gRPC's and httpx's do.
# ruff: noqa: N818

import re
from typing import ClassVar

import grpc


class Qwen3VLError(Exception):
    """A request that has no answer. `message` says why; `request_id` finds it in the server's log."""

    code: ClassVar[str] = "unknown"

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message if self.request_id is None else f"{self.message} (request {self.request_id})"


class InvalidRequest(Qwen3VLError, ValueError):
    """The request itself is wrong: a value out of range, a file that is no video. The same request fails again."""

    code = "invalid_argument"


class NotFound(Qwen3VLError):
    """A path below the server's media root that does not exist."""

    code = "not_found"


class ResourceExhausted(Qwen3VLError):
    """The server is full, or the request is too large for it.

    `retry_after_seconds` is the server's estimate of when there is room; None where it gives none.
    """

    code = "resource_exhausted"

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        told = _RETRY.search(message)
        self.retry_after_seconds = int(told[1]) if told else None


class ServerUnavailable(Qwen3VLError):
    """Nobody answers at that address, or the server (or one of its stages) went away."""

    code = "unavailable"


class Timeout(Qwen3VLError, TimeoutError):
    """The request took longer, or the server was silent for longer, than allowed."""

    code = "deadline_exceeded"


class Cancelled(Qwen3VLError):
    """The request was ended before its answer, by this client or by the server."""

    code = "cancelled"


class InternalError(Qwen3VLError):
    """The server failed, or answered something that this client does not understand."""

    code = "internal"


_CLASSES: dict[str, type[Qwen3VLError]] = {
    error.code: error
    for error in (InvalidRequest, NotFound, ResourceExhausted, ServerUnavailable, Timeout, Cancelled, InternalError)
}
_RETRY = re.compile(r"retry in (\d+) s$")
_CODED_MESSAGE = re.compile(
    rf"(?:\[request id: [^\]]*\] )?(?:in ensemble '[^']*', )*({'|'.join(_CLASSES)}): (.*)", re.DOTALL
)
# gRPC's words for a message that is longer than the server takes.
# The server's own words for requests that a stage held when it died; it says when to ask again.
_RELOADING = "is being loaded again: retry in"
_TOO_LARGE = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")
# Triton's own words for a model that is not loaded, is being reloaded, or whose process died.
_MODEL_AWAY = re.compile(r"unknown model|no available versions|not healthy|not ready|is unloading", re.IGNORECASE)


def from_message(text: str, request_id: str) -> Qwen3VLError:
    """The error that a response's error message means; one without a known code is an `InternalError`."""
    if match := _CODED_MESSAGE.match(text):
        return _CLASSES[match[1]](match[2], request_id=request_id)
    if _MODEL_AWAY.search(text):
        return ServerUnavailable(f"the server is up but does not serve the model now: {text}", request_id=request_id)
    return InternalError(text or "the server failed and gave no reason", request_id=request_id)


def from_rpc(error: grpc.RpcError, request_id: str, url: str, *, answering: bool) -> Qwen3VLError:
    """The error that a failed call means; `answering` tells whether the server had responded to the request before."""
    status, details = error.code(), error.details() or "no details"
    if _RELOADING in details:
        return ServerUnavailable(details, request_id=request_id)
    if status is grpc.StatusCode.UNAVAILABLE and answering:
        return ServerUnavailable(f"the server at {url} went away during the request: {details}", request_id=request_id)
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
        return ServerUnavailable(
            f"no Triton server answers gRPC at {url}: {details}. Start one with `make serve`, or name another one by "
            "url= (--url, QWEN3_VL_URL) as host:port of its gRPC port, usually 8001",
            request_id=request_id,
        )
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return InvalidRequest(f"the server at {url} refused the caller: {details}", request_id=request_id)
    if match := _TOO_LARGE.search(details):
        return ResourceExhausted(
            f"the request has {int(match[1]):,} bytes; the server at {url} takes at most {int(match[2]):,}. Put larger "
            "files below its media root and name them by uri=",
            request_id=request_id,
        )
    return _CLASSES.get(status.name.lower(), InternalError)(details, request_id=request_id)
