"""Every port: connections that are held, heads that stay half, bodies without an end, answers that nobody reads."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator

import grpc
from tritonclient.grpc import service_pb2

from perf.attack import wire
from perf.attack.expect import expect
from perf.attack.field import SILENT_SECONDS, Field
from perf.attack.kinds.control import GRPC, stub
from perf.attack.table import attack, lasting_attack

IDLE = 1_100
HALF_HEADS = 3_000
ENDLESS_BYTES = 256 * 2**20
ANNOUNCED_BYTES = 8 * 2**30
LITTLE_MIB, MEDIA_MIB = 64.0, 320.0
"""The bytes of such a body that may be held: where no media travel, and where they may."""
DRIPPING = 10
"""Connections of one kind to one door."""
DRIP_SECONDS = 2.0
CLOSED_SECONDS = 75.0
"""By then a server has closed a connection on which no request comes."""
UNREAD = 200
UNREAD_BYTES = 16 * 2**20
DOORS = {
    "API": "api",
    "keyless API": "keyless",
    "page": "page",
    "Triton HTTP": "http",
    "metrics": "metrics",
    "health": "health",
}
_HALF_HEAD = b"GET / HTTP/1.1\r\nHost: somebody\r\nX-Slow: "


def _idle(door: str, attribute: str) -> None:
    @attack(door, f"{IDLE:,} connections that say nothing", expects="others are answered", needs=(attribute,))
    def hold_idle(field: Field) -> str:
        with wire.held(getattr(field.stack, attribute), IDLE) as count, field.others(door) as seen:
            time.sleep(1)
        return f"{count:,} were open; {seen}"

    @attack(door, f"{HALF_HEADS:,} heads that stay half", expects="others are answered", needs=(attribute,))
    def hold_half_heads(field: Field) -> str:
        with wire.held(getattr(field.stack, attribute), HALF_HEADS, _HALF_HEAD) as count, field.others(door) as seen:
            time.sleep(1)
        return f"{count:,} were open; {seen}"


for _door, _attribute in DOORS.items():
    _idle(_door, _attribute)


@attack(GRPC, f"{IDLE:,} connections that say nothing", expects="others are answered", needs=("grpc",))
def hold_idle_grpc(field: Field) -> str:
    with wire.held(f"http://{field.grpc}", IDLE) as count, field.others("API") as seen:
        started = time.monotonic()
        with stub(field.grpc) as triton, contextlib.suppress(grpc.RpcError):
            triton.ModelReady(service_pb2.ModelReadyRequest(name="qwen3_vl"), timeout=10)
        waited = time.monotonic() - started
        expect(waited <= SILENT_SECONDS, f"who came then waited {waited:.1f} s")
    return f"{count:,} were open; {seen}"


@lasting_attack("every port", "heads that grow by a byte now and then", expects=f"closed within {CLOSED_SECONDS:g} s")
def drip_heads(field: Field) -> Generator[None, None, str]:
    yield from _drip(field, dict.fromkeys(field.stack.doors(), _HALF_HEAD))
    return "all were closed"


@lasting_attack("every port", "connections that say nothing for long", expects=f"closed within {CLOSED_SECONDS:g} s")
def stay_idle(field: Field) -> Generator[None, None, str]:
    yield from _drip(field, dict.fromkeys(field.stack.doors(), b""), dripped=b"")
    return "all were closed"


@lasting_attack(
    "API, page",
    "JSON that grows by a byte now and then",
    expects=f"closed within {CLOSED_SECONDS:g} s",
    needs=("api",),
)
def drip_bodies(field: Field) -> Generator[None, None, str]:
    paths = {"API": "/v1/chat/completions", "keyless API": "/v1/chat/completions", "page": "/ask"}
    doors = {door: url for door, url in field.stack.doors().items() if door in paths}
    headers = {"Content-Type": "application/json", "Content-Length": "100000", **wire.bearer(field.stack.key_b)}
    yield from _drip(field, {door: wire.head(url, "POST", paths[door], headers) for door, url in doors.items()}, b" ")
    return "all were closed"


def _drip(field: Field, begun: dict[str, bytes], dripped: bytes = b"x") -> Generator[None, None, None]:
    """Opens some connections at each door, lets them drip while the other attacks run, and looks at the end."""
    doors = field.stack.doors()
    held: list[tuple[str, socket.socket]] = []
    stopping = threading.Event()

    def drip() -> None:
        while not stopping.wait(DRIP_SECONDS):
            for _, connection in held:
                with contextlib.suppress(OSError):
                    connection.send(dripped)

    for door, content in begun.items():
        for _ in range(DRIPPING):
            connection = wire.connect(doors[door])
            connection.sendall(content)
            connection.setblocking(False)
            held.append((door, connection))
    dripping = threading.Thread(target=drip)
    if dripped:
        dripping.start()
    started = time.monotonic()
    try:
        yield
        time.sleep(max(0.0, started + CLOSED_SECONDS - time.monotonic()))
        open_doors = [door for door, connection in held if not wire.is_closed(connection)]
    finally:
        stopping.set()
        for _, connection in held:
            connection.close()
    told = {door: open_doors.count(door) for door in dict.fromkeys(open_doors)}
    seconds = time.monotonic() - started
    expect(not told, f"still open after {seconds:.0f} s, of {DRIPPING} each: {told}")


def _endless(door: str, attribute: str, path: str, mib: float) -> None:
    expects = "refused or read; others are answered, and no memory is taken"

    @attack(door, "a body that never ends, in chunks", expects=expects, needs=(attribute,))
    def chunked(field: Field) -> str:
        piece = b" " * 2**20
        content = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        return _pour(field, door, path, mib, {"Transfer-Encoding": "chunked"}, content)

    @attack(door, "a body of gigabytes, announced", expects=expects, needs=(attribute,))
    def announced(field: Field) -> str:
        return _pour(field, door, path, mib, {"Content-Length": str(ANNOUNCED_BYTES)}, b" " * 2**20)


def _pour(field: Field, door: str, path: str, mib: float, headers: dict[str, str], content: bytes) -> str:
    url = field.stack.doors()[door]
    named = {"Content-Type": "application/json", **headers, **wire.bearer(field.stack.key_b)}
    with field.others(door, mib=mib) as seen, wire.connect(url, timeout_seconds=10) as connection:
        connection.sendall(wire.head(url, "POST", path, named))
        sent = 0
        try:
            while sent < ENDLESS_BYTES:
                connection.sendall(content)
                sent += len(content)
            told = f"{sent // 2**20} MiB were taken"
        except (BrokenPipeError, ConnectionResetError):
            told = f"closed after {sent // 2**20} MiB"
        except TimeoutError:
            told = f"not read beyond {sent // 2**20} MiB"
    return f"{told}; {seen}"


for _door, _path, _mib in (
    ("metrics", "/metrics", LITTLE_MIB),
    ("health", "/ready", LITTLE_MIB),
    ("Triton HTTP", "/v2/models/qwen3_vl/generate", MEDIA_MIB),
    ("API", "/v1/chat/completions", MEDIA_MIB),
    ("keyless API", "/v1/summaries", MEDIA_MIB),
    ("page", "/ask", LITTLE_MIB),
):
    _endless(_door, DOORS[_door], _path, _mib)


@attack("API", f"{UNREAD} downloads that nobody reads", expects="others are answered", needs=("api",))
def unread_downloads(field: Field) -> str:
    body, headers = wire.multipart("unread.bin", bytes(UNREAD_BYTES))
    key = wire.bearer(field.stack.key_b)
    uploaded = wire.send(field.api, "POST", "/v1/files", body, {**headers, **key})
    expect(uploaded.status == 200, f"the upload was refused: {uploaded}")
    path = f"/v1/files/{uploaded.json()['id']}"
    asked = wire.head(field.api, "GET", f"{path}/content", key)
    with field.others("API") as seen, wire.held(field.api, UNREAD, asked, receive_bytes=4096) as count:
        time.sleep(2)
    wire.send(field.api, "DELETE", path, headers=key)
    return f"{count} were open; {seen}"


@attack("keyless API", "slow bodies of uploads, 300 at once", expects="others are answered", needs=("keyless",))
def slow_uploads(field: Field) -> str:
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Content-Length": "1000000"}
    begun = wire.head(field.keyless, "POST", "/v1/files", headers) + b"--edge\r\n"
    with field.others("keyless API") as seen, wire.held(field.keyless, 300, begun) as count:
        time.sleep(2)
    return f"{count} were open; {seen}"
