"""A gate before a server, for tests, and plain requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from tritonclient.grpc import service_pb2

from build.serve.gate.settings import GateSettings
from build.serve.gate_process import Gate
from build.serve.server.triton import free_ports
from tests.support.serving import Server

SERVICE = "/inference.GRPCInferenceService/"
LONG = {"temperature": 0, "max_tokens": 6000, "ignore_eos": True}


@dataclass(frozen=True)
class Doors:
    """Where a gate listens: `grpc` is `127.0.0.1:PORT`, the others `http://127.0.0.1:PORT`."""

    process: Gate
    grpc: str
    http: str
    metrics: str
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


def settings(triton: Server, **values: Any) -> GateSettings:
    """Those of a gate on free ports."""
    grpc_port, http_port, metrics_port = free_ports("127.0.0.1", 3)
    return GateSettings(
        **{
            "host": "127.0.0.1",
            "grpc_port": grpc_port,
            "http_port": http_port,
            "metrics_port": metrics_port,
            "triton_grpc": triton.grpc_url,
            "triton_http": triton.http_url,
            "triton_metrics": triton.metrics_url,
            "access": "a-secret-of-the-server",
            **values,
        }
    )


@contextlib.contextmanager
def opened(triton: Server, log: Path, **values: Any) -> Iterator[Doors]:
    """A gate with these settings."""
    chosen = settings(triton, **values)
    with Gate(chosen, log) as process:
        url = "http://127.0.0.1"
        yield Doors(
            process,
            f"127.0.0.1:{chosen.grpc_port}",
            f"{url}:{chosen.http_port}",
            f"{url}:{chosen.metrics_port}",
            log,
        )


def fetch(
    url: str, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """The status and the body; a body that is not bytes is sent as JSON."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def call(url: str, method: str, request: bytes = b"", **options: Any) -> bytes:
    """One unary call of Triton's service, over bytes. Raises grpc.RpcError."""
    with grpc.insecure_channel(url) as channel:
        return channel.unary_unary(SERVICE + method)(request, timeout=60, **options)


def tell(url: str, message: service_pb2.ModelInferRequest | bytes) -> list[service_pb2.ModelStreamInferResponse]:
    """All responses to one message on a stream of its own. Raises grpc.RpcError."""
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    with grpc.insecure_channel(url, [("grpc.max_send_message_length", -1)]) as channel:
        responses = channel.stream_stream(f"{SERVICE}ModelStreamInfer")(iter([raw]), timeout=60)
        return [service_pb2.ModelStreamInferResponse.FromString(response) for response in responses]


def asked(model: str, *tensors: tuple[str, str, list[int], bytes], **parameters: bool) -> Any:
    """A request with inputs of name, datatype, shape and raw content."""
    request = service_pb2.ModelInferRequest(model_name=model, id="a-request-of-the-tests")
    for name, datatype, shape, raw in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    for name, value in parameters.items():
        request.parameters[name].bool_param = value
    return request


def string(value: bytes) -> bytes:
    """As it stands in raw contents."""
    return len(value).to_bytes(4, "little") + value
