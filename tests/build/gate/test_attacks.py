"""Who fills, stalls or leaves the doors does not stop the others, and ends no process of the server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest

from qwen3_vl_client import Client, ResourceExhausted
from tests.build.gate.doors import LONG, SERVICE, asked, call, fetch, opened, string, tell
from tests.support import wire

STREAM = f"{SERVICE}ModelStreamInfer"


SETTINGS, HEADERS, ACK, END_HEADERS = 4, 1, 1, 4


def frame(kind: int, stream: int, content: bytes = b"", flags: int = 0) -> bytes:
    """Of HTTP/2."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def varint(number: int) -> bytes:
    """The rest of an integer of HPACK, behind its prefix."""
    parts = []
    while number >= 128:
        parts.append(number % 128 | 128)
        number //= 128
    return bytes([*parts, number])


def connected(url: str, head: str) -> socket.socket:
    """A connection over which the head of an HTTP request was sent."""
    where = urlsplit(url)
    connection = socket.create_connection((str(where.hostname), where.port), timeout=60)
    connection.sendall(f"{head} HTTP/1.1\r\nHost: {where.netloc}\r\n".encode())
    return connection


def received(connection: socket.socket) -> bytes:
    heard = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            heard += piece
    return heard


def memory_bytes(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("/v2/models/qwen3_vl/generate", [b"400 Bad Request"]),
        # Refused by its path, or by its chunks: whichever is seen first.
        ("/v2/models/qwen3_vl/infer", [b"501 Not Implemented", b"400 Bad Request"]),
        ("/v2/repository/index", [b"403 Forbidden", b"400 Bad Request"]),
    ],
)
def test_a_body_of_600_000_chunks_of_one_byte(gate, unharmed, path, answers):
    with connected(gate.http, f"POST {path}") as connection:
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            connection.sendall(b"1\r\nx\r\n" * 600_000 + b"0\r\n\r\n")
        heard = received(connection)
        assert any(answer in heard for answer in answers), heard


def test_a_chunked_body_is_answered(gate, unharmed):
    body = json.dumps({"text_input": "Hello" * 1000, "stream": False, "sampling_parameters": '{"max_tokens": 2}'})
    with connected(gate.http, "POST /v2/models/qwen3_vl/generate") as connection:
        connection.sendall(b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for begin in range(0, len(body), 2000):
            piece = body[begin : begin + 2000].encode()
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        assert b"200 OK" in received(connection)


def test_clients_that_leave_in_the_middle_of_an_answer(gate, unharmed):
    """Triton has crashed when calls were cancelled while it answered."""
    for _ in range(20):
        requests = [wire.Request(gate.grpc, wire.question("Go on", sampling=LONG)) for _ in range(2)]
        for request in requests:
            next(iter(request))
            request.close()
    wire.wait_idle(gate.grpc, seconds=15)


@pytest.mark.parametrize("kind", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    "own", [{"id": "nobody-guesses-this-id"}, {"id": "7"}, {}], ids=["long id", "short id", "no id"]
)
def test_http_clients_that_leave_in_the_middle_of_an_answer(gate, unharmed, kind, own):
    question = {**own, "text_input": "Go on", "sampling_parameters": json.dumps(LONG)}
    body = json.dumps({**question, "stream": kind == "generate_stream"}).encode()
    with connected(gate.http, f"POST /v2/models/qwen3_vl/{kind}") as connection:
        connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_until(lambda: wire.engine_state(gate.grpc)["sessions"] == 1, 15)
    wire.wait_idle(gate.grpc, seconds=15)


@pytest.mark.parametrize("kind", ["generate", "generate_stream"])
def test_a_client_gets_its_own_id_back(gate, kind):
    question = {"id": 'my "7"', "text_input": "Hi", "sampling_parameters": '{"max_tokens": 3}'}
    body = json.dumps({**question, "stream": kind == "generate_stream"}).encode()
    status, text = fetch(gate.http, f"/v2/models/qwen3_vl/{kind}", body)
    assert status == 200
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]
    assert {event["id"] for event in events} == {question["id"]}
    assert len(events) > 1 or kind == "generate"


def test_a_call_ends_after_many_refusals(gate, unharmed):
    wrong = asked("qwen3_vl", ("video", "BYTES", [4096], string(b"")))
    with (
        grpc.insecure_channel(gate.grpc) as channel,
        pytest.raises(grpc.RpcError, match="17 requests were refused") as ended,
    ):
        list(channel.stream_stream(STREAM)(iter([wrong.SerializeToString()] * 1000)))
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_header_that_is_referred_to_is_not_unpacked_again_and_again(gate, unharmed):
    """HPACK: a header of a few kilobytes is sent once, and then named by one byte, thousands of times."""
    where = urlsplit(f"//{gate.grpc}")
    with socket.create_connection((str(where.hostname), where.port), timeout=30) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0))
        assert connection.recv(4096)
        connection.sendall(frame(SETTINGS, 0, flags=ACK))
        time.sleep(0.2)
        kept = b"\x40\x03x-a\x7f" + varint(3900 - 127) + b"y" * 3900
        connection.sendall(frame(HEADERS, 1, kept + b"\xbe" * 3000, flags=END_HEADERS))
        # The connection is at fault, and closed.
        assert b"HPACK max table size" in received(connection)


def test_a_request_that_is_too_late_is_ended(gate, unharmed):
    request = wire.question("Go on", sampling=LONG)
    message = asked("qwen3_vl")
    for tensor in request:
        message.inputs.append(tensor._get_tensor())
        message.raw_input_contents.append(tensor._get_content())
    with (
        grpc.insecure_channel(gate.grpc) as channel,
        pytest.raises(grpc.RpcError) as late,
    ):
        list(channel.stream_stream(STREAM)(iter([message.SerializeToString()]), timeout=1))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wire.wait_idle(gate.grpc, seconds=15)


def test_messages_and_bodies_above_the_bounds(triton, log):
    video = asked("qwen3_vl", ("video", "BYTES", [1], string(bytes(2**20))))
    with opened(triton, log, max_request_mib=1, max_json_mib=1, max_held_mib=1) as small:
        with pytest.raises(grpc.RpcError) as refused:
            tell(small.grpc, video)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1048576" in str(refused.value.details())
        with Client(small.grpc) as client, pytest.raises(ResourceExhausted, match="takes at most 1,048,576"):
            client.ask(bytes(2**20), "What happens?")
        status, text = fetch(small.http, "/v2/models/qwen3_vl/generate", bytes(2**20 + 1))
        assert (status, "1,048,576" in text) == (413, True)
        with pytest.raises(grpc.RpcError):
            call(small.grpc, "ServerMetadata", bytes(5000))
        assert wire.engine_state(small.grpc)


def test_streams_that_ask_nothing_keep_nobody_out(triton, log):
    """Each on a connection of its own, which is what others then lack."""
    with opened(triton, log, max_connections=32) as small, contextlib.ExitStack() as clients:
        held = threading.Event()
        clients.callback(held.set)

        def nothing() -> Iterator[bytes]:
            held.wait()
            yield from ()

        for _ in range(31):
            channel = grpc.insecure_channel(small.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
            clients.enter_context(channel)
            channel.stream_stream(STREAM)(nothing())
        deadline = time.monotonic() + 60
        for _ in range(4):
            while True:
                with (
                    contextlib.suppress(grpc.RpcError),
                    grpc.insecure_channel(small.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
                ):
                    channel.unary_unary(f"{SERVICE}ServerLive")(b"", timeout=5, wait_for_ready=True)
                    break
                assert time.monotonic() < deadline


def test_bodies_that_are_held_leave_room_for_short_requests(triton, log):
    """Four clients send nearly all of their bodies, and wait."""
    with (
        opened(triton, log, max_request_mib=1, max_json_mib=1, max_held_mib=3) as small,
        contextlib.ExitStack() as held,
    ):
        for _ in range(4):
            connection = held.enter_context(connected(small.http, "POST /v2/models/qwen3_vl/generate"))
            connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (2**20, bytes(2**20 - 1)))
        wait_until(lambda: fetch(small.http, "/v2/models/qwen3_vl/generate", bytes(2**19))[0] == 503, 15)
        question = {"text_input": "Hello", "stream": False, "sampling_parameters": '{"max_tokens": 2}'}
        assert fetch(small.http, "/v2/models/qwen3_vl/generate", question)[0] == 200


def test_streams_that_ask_nothing_give_way(triton, log):
    """As many as may be open are; one of them leaves its place to clients that ask, after some seconds."""
    with opened(triton, log, max_calls=4) as small, grpc.insecure_channel(small.grpc) as channel:
        ended = threading.Event()
        idle = [channel.stream_stream(STREAM)(_nothing(ended), timeout=60) for _ in range(4)]
        wait_until(lambda: any(stream.done() for stream in idle), 60)
        wait_until(lambda: _answers(small.grpc), 30)
        codes = [stream.code() if stream.done() else None for stream in idle]
        ended.set()
    assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
    assert None in codes


def test_streams_that_stand_still_are_ended(triton, log):
    with opened(triton, log, idle_seconds=1) as small, grpc.insecure_channel(small.grpc) as channel:
        ended = threading.Event()
        with pytest.raises(grpc.RpcError) as idle:
            list(channel.stream_stream(STREAM)(_nothing(ended), timeout=60))
        ended.set()
    assert idle.value.code() is grpc.StatusCode.ABORTED
    assert "nothing was asked for 1 s" in str(idle.value.details())


def test_a_client_that_does_not_read_is_ended(triton, log):
    """Its answer is longer than what the connection holds; the KV blocks come back before it is complete."""
    message = asked("qwen3_vl", ("text_input", "BYTES", [1], string(b"Go on")))
    sampling = {**LONG, "max_tokens": 8000, "return_token_ids": True}
    message.inputs.add(name="sampling_parameters", datatype="BYTES", shape=[1])
    message.raw_input_contents.append(string(json.dumps(sampling).encode()))
    window = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    with opened(triton, log, stall_seconds=1) as small, grpc.insecure_channel(small.grpc, window) as channel:
        unread = channel.stream_stream(STREAM)(iter([message.SerializeToString()]), timeout=120)
        wait_until(lambda: wire.engine_state(triton.grpc_url)["sessions"] == 1, 30)
        wire.wait_idle(triton.grpc_url, seconds=60)
        with pytest.raises(grpc.RpcError) as ended:
            list(unread)
    assert ended.value.code() is grpc.StatusCode.ABORTED


def test_connections_above_the_bound_are_closed(triton, log):
    """Those that say nothing are closed after some seconds; clients that ask are answered again then."""
    with opened(triton, log, max_connections=4) as small, contextlib.ExitStack() as held:
        host, _, port = small.grpc.rpartition(":")
        silent = [held.enter_context(socket.create_connection((host, int(port)))) for _ in range(20)]
        wait_until(lambda: _answers(small.grpc), 60)
        for _ in range(20):
            held.enter_context(connected(small.http, "GET /v2"))
        assert fetch(small.http, "/v2")[0] == 200
        assert small.process.exit_status() is None
        assert len(silent) == 20


def test_messages_that_never_arrive_whole_do_not_fill_memory(triton, log):
    """Fourteen clients send 60 MiB of 63 each, and wait; gRPC holds what has arrived."""
    message = asked("qwen3_vl", ("video", "BYTES", [1], string(bytes(63 * 2**20)))).SerializeToString()
    with opened(triton, log, max_request_mib=64, max_held_mib=64) as small, contextlib.ExitStack() as clients:
        calls = []
        for _ in range(14):
            url = clients.enter_context(_stalled(small.grpc, 60 * 2**20))
            channel = clients.enter_context(grpc.insecure_channel(url, [("grpc.max_send_message_length", -1)]))
            calls.append(channel.stream_stream(STREAM)(iter([message]), timeout=120))
        wait_until(lambda: any(each.done() for each in calls), 60)
        wait_until(lambda: _answers(small.grpc) and memory_bytes(small.pid) < 700 * 2**20, 30)
        codes = {each.code() for each in calls if each.done()}
        for each in calls:
            each.cancel()
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def _answers(url: str) -> bool:
    try:
        return bool(tell(url, asked("decoder", ("stop", "BOOL", [1], b"\x00"))))
    except grpc.RpcError:
        return False


def _nothing(ended: threading.Event) -> Iterator[bytes]:
    """What a client asks that stays, and asks nothing."""
    ended.wait()
    yield from ()


@contextlib.contextmanager
def _stalled(target: str, size: int) -> Iterator[str]:
    """The address of a proxy that hands on the first `size` bytes that a client sends, and no more."""
    host, _, port = target.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def carry() -> None:
            inner, _ = listening.accept()
            outer = socket.create_connection((host, int(port)))
            threading.Thread(target=copy, args=(outer, inner, 2**62), daemon=True).start()
            copy(inner, outer, size)

        def copy(source: socket.socket, target: socket.socket, left: int) -> None:
            with contextlib.suppress(OSError):
                while left > 0 and (piece := source.recv(min(left, 2**18))):
                    target.sendall(piece)
                    left -= len(piece)

        threading.Thread(target=carry, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
