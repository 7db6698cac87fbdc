"""The calls of Triton's gRPC services, and the paths of its HTTP server, that clients may use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from build.serve.server.triton import ENSEMBLE, STAGES

_SERVICE = "/inference.GRPCInferenceService/"

STREAM = f"{_SERVICE}ModelStreamInfer"
UNARY_INFER = f"{_SERVICE}ModelInfer"
MODELS = (ENSEMBLE, *STAGES)
_OF_A_MODEL: Mapping[str, Any] = {
    f"{_SERVICE}{name}": getattr(service_pb2, f"{name}Request")
    for name in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
}
# These tell what a server and its models are, and how they are.
TELLING = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        *(f"{_SERVICE}{name}" for name in ("ServerLive", "ServerReady", "ServerMetadata")),
        *_OF_A_MODEL,
    }
)
CLOSED = "is closed to clients: only the supervisor, which has the server's secret, may ask that"
# Triton says so of every model that clients may ask: all answer in pieces.
IN_PIECES = "models here answer in pieces: ask by gRPC's ModelStreamInfer, or by generate or generate_stream over HTTP"

# Triton keeps the first for itself; the others belong to a connection and not to a request.
_RESERVED = ("grpc-", "triton-grpc-protocol-", ":")
_HOP_BY_HOP = frozenset(
    {"connection", "content-type", "host", "keep-alive", "qwen3-vl-access", "te", "transfer-encoding", "user-agent"}
)

# perf_analyzer, asked to measure an ensemble, reads each stage's configuration, and the statistics of all at once.
_READ = re.compile(
    rf"/v2(/health/(live|ready)|/models/stats|/models/({'|'.join(MODELS)})(/versions/[0-9]{{1,9}})?(/ready|/config|/stats)?)?"
)
_ASK = re.compile(
    r"/v2/models/(?P<model>[a-z0-9_]{1,64})(/versions/[0-9]{1,9})?/(?P<kind>generate_stream|generate|infer)"
)


def travels(header: str) -> bool:
    """Whether a client's header or metadata of this name, in lower case, goes on to Triton."""
    return header not in _HOP_BY_HOP and not header.startswith(_RESERVED)


def may_read(path: str) -> bool:
    """Whether GET of this path is let through."""
    return _READ.fullmatch(path) is not None


def may_tell(method: str, request: bytes) -> bool:
    """The same for a call of `TELLING`. Raises DecodeError for a request that is none."""
    if method not in _OF_A_MODEL:
        return True
    name = _OF_A_MODEL[method].FromString(request).name
    # Without a name, all statistics are asked for.
    return name in MODELS or (not name and method.endswith("/ModelStatistics"))


def asked(path: str) -> tuple[str, str] | None:
    """The model and `generate`, `generate_stream` or `infer`, if a POST to the path asks a model."""
    match = _ASK.fullmatch(path)
    return match and (match["model"], match["kind"])
