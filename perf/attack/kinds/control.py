"""Triton's HTTP and gRPC ports: what controls the server is not for whoever reaches them."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from perf.attack import wire
from perf.attack.expect import GotThroughError, expect
from perf.attack.field import Field
from perf.attack.table import attack

HTTP, GRPC = "Triton HTTP", "Triton gRPC"
REFUSED = "refused"
FOREIGN = {"Host": "evil.example", "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
CALL_SECONDS = 20.0
TINY_CHUNKS = 600_000
_REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
    # Triton's own, of a call that is restricted.
    grpc.StatusCode.UNAVAILABLE,
)
_CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
class TritonPythonModel:
    def execute(self, requests):
        return []
"""
_CONFIG = (
    '{"name": "evil", "backend": "python", "max_batch_size": 0, "input": [{"name": "x", "data_type": "TYPE_INT32", \
"dims": [1]}], "output": [{"name": "y", "data_type": "TYPE_INT32", "dims": [1]}]}'
)


@contextlib.contextmanager
def stub(target: str) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """Triton's calls on a connection of their own."""
    with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def refused_call(call: Callable[[], object]) -> str:
    """Makes a call that must end in an error, and tells which. Raises GotThroughError if it does not."""
    try:
        answer = call()
    except grpc.RpcError as error:
        told = f"{error.code().name}: {str(error.details())[:80]}"
        if error.code() not in _REFUSALS:
            raise GotThroughError(f"not refused, but {told}") from None
        return told
    raise GotThroughError(f"answered: {str(answer)[:100]}")


def refused(answer: wire.Answer) -> str:
    """Tells with which status. Raises GotThroughError if the request was not refused."""
    expect(answer.refused, f"answered: {answer}")
    return str(answer)


def _load_code(field: Field, headers: Mapping[str, str], content_type: str) -> str:
    marker = field.folder / f"code-ran-{time.monotonic_ns()}"
    code = base64.b64encode(_CODE.format(marker=str(marker)).encode()).decode()
    body = json.dumps({"parameters": {"config": _CONFIG, "file:1/model.py": code}}).encode()
    named = {"Content-Type": content_type, **headers}
    answer = wire.send(field.http, "POST", "/v2/repository/models/evil/load", body, named)
    expect(not marker.exists(), f"the code that was sent ran on the server: {answer}")
    return refused(answer)


@attack(HTTP, "load a model with code of one's own", expects=REFUSED, needs=("http",))
def load_code(field: Field) -> str:
    return _load_code(field, {}, "application/json")


@attack(HTTP, "the same from a page of another site", expects=REFUSED, needs=("http",))
def load_code_from_page(field: Field) -> str:
    return _load_code(field, FOREIGN, "text/plain")


@attack(GRPC, "load a model with code of one's own", expects=REFUSED, needs=("grpc",))
def load_code_by_grpc(field: Field) -> str:
    marker = field.folder / "code-ran-grpc"
    request = service_pb2.RepositoryModelLoadRequest(model_name="evil")
    request.parameters["config"].string_param = _CONFIG
    request.parameters["file:1/model.py"].bytes_param = _CODE.format(marker=str(marker)).encode()
    with stub(field.grpc) as triton:
        told = refused_call(lambda: triton.RepositoryModelLoad(request, timeout=CALL_SECONDS))
    expect(not marker.exists(), "the code that was sent ran on the server")
    return told


_CONTROL = {
    "repository index": ("POST", "/v2/repository/index", {}),
    "log settings": ("POST", "/v2/logging", {"log_verbose_level": 0}),
    "trace settings": ("POST", "/v2/trace/setting", {"trace_level": ["OFF"]}),
    "shared memory, status": ("GET", "/v2/systemsharedmemory/status", None),
    "shared memory, register": (
        "POST",
        "/v2/systemsharedmemory/region/evil/register",
        {"key": "/evil", "offset": 0, "byte_size": 64},
    ),
    "shared memory, unregister": ("POST", "/v2/systemsharedmemory/unregister", {}),
    "device memory, status": ("GET", "/v2/cudasharedmemory/status", None),
    "unload a model": ("POST", "/v2/repository/models/vision_encoder/unload", {}),
}


def _control(name: str, method: str, path: str, body: object) -> None:
    @attack(HTTP, name, expects=REFUSED, needs=("http",))
    def send(field: Field) -> str:
        content = None if body is None else json.dumps(body).encode()
        return refused(wire.send(field.http, method, path, content, {"Content-Type": "application/json"}))


for _name, (_method, _path, _body) in _CONTROL.items():
    _control(_name, _method, _path, _body)


_CALLS: dict[str, tuple[str, object]] = {
    "repository index": ("RepositoryIndex", service_pb2.RepositoryIndexRequest()),
    "log settings": ("LogSettings", service_pb2.LogSettingsRequest()),
    "trace settings": ("TraceSetting", service_pb2.TraceSettingRequest()),
    "shared memory, status": ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()),
    "shared memory, register": (
        "SystemSharedMemoryRegister",
        service_pb2.SystemSharedMemoryRegisterRequest(name="evil", key="/evil", byte_size=64),
    ),
    "shared memory, unregister": ("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest()),
    "device memory, status": ("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest()),
    "unload a model": ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest(model_name="vision_encoder")),
}


def _call(name: str, method: str, request: object) -> None:
    @attack(GRPC, name, expects=REFUSED, needs=("grpc",))
    def send(field: Field) -> str:
        with stub(field.grpc) as triton:
            return refused_call(lambda: getattr(triton, method)(request, timeout=CALL_SECONDS))


for _name, (_method, _request) in _CALLS.items():
    _call(_name, _method, _request)


@attack(GRPC, "the stages' own memory as a tensor", expects=REFUSED, needs=("grpc", "own"))
def stages_memory(field: Field) -> str:
    """The regions through which Triton and its stages speak are registered, and named as an input."""
    assert field.stack.own is not None
    regions = stages_regions(field.stack.own.pids())
    told = "no region was found"
    with stub(field.grpc) as triton:
        for region in regions:
            request = service_pb2.SystemSharedMemoryRegisterRequest(name=region, key=f"/{region}", byte_size=2**20)
            call = functools.partial(triton.SystemSharedMemoryRegister, request, timeout=CALL_SECONDS)
            told = refused_call(call)
    return told


def stages_regions(pids: Mapping[str, int]) -> list[str]:
    """The names in /dev/shm by which Triton and its stages share memory: each stage is told its own when started."""
    import psutil

    stages = [pids[name] for name in ("decoder", "vision_encoder", "video_preprocess") if name in pids]
    # STUB MODEL/VERSION/model.py REGION ...
    return [psutil.Process(pid).cmdline()[2] for pid in stages]


@attack(HTTP, "600,000 chunks of one byte", expects="refused or read; nobody waits, nothing ends", needs=("http",))
def tiny_chunks(field: Field) -> str:
    path = "/v2/models/qwen3_vl/infer"
    with field.others("Triton HTTP", "API") as seen:
        connection = wire.connect(field.http, timeout_seconds=30)
        told = "all were taken"
        try:
            connection.sendall(wire.head(field.http, "POST", path, {"Transfer-Encoding": "chunked"}))
            for _ in range(0, TINY_CHUNKS, 1000):
                connection.sendall(b"1\r\n \r\n" * 1000)
            connection.sendall(b"0\r\n\r\n")
            told = connection.recv(200).partition(b"\r\n")[0].decode(errors="replace") or "closed"
        except (BrokenPipeError, ConnectionResetError):
            told = "closed before the end"
        except TimeoutError:
            told = "not answered"
        finally:
            connection.close()
    return f"{told}; {seen}"


def _foreign_host(door: str, path: str, attribute: str) -> None:
    @attack(door, "a foreign Host, as after DNS rebinding", expects=REFUSED, needs=(attribute,))
    def send(field: Field) -> str:
        url = getattr(field.stack, attribute)
        return refused(wire.send(url, "GET", path, headers={"Host": "evil.example"}))


for _door, _path, _attribute in (
    ("Triton HTTP", "/v2/models/qwen3_vl", "http"),
    ("metrics", "/metrics", "metrics"),
    ("health", "/ready", "health"),
    ("keyless API", "/v1/models", "keyless"),
    ("page", "/", "page"),
):
    _foreign_host(_door, _path, _attribute)
