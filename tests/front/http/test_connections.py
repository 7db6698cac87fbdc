"""Connections that say nothing, half of something, or read nothing: others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from build.serve.server.triton import free_ports
from qwen3_vl_client.front.http.connections import Bounds
from tests.support.front import answer, connected, head, hears, served

HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: "
MIB = 2**20
GO = threading.Event()
"""Ends what waits at `/wait`."""
BEGUN: list[str] = []
"""The paths of all requests that reached the app."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echoes how long the body was; `/unread` does not read it, `/large` answers with 64 MiB, `/once` with 16 at once,
    `/wait` when it is told to."""
    if scope["type"] == "lifespan":
        for state in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{state}.complete"})
        return
    BEGUN.append(scope["path"])
    size, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    while scope["path"] == "/wait" and not GO.is_set():
        await asyncio.sleep(0.05)
    large = {"/large": [b"x" * MIB] * 64, "/once": [b"x" * 16 * MIB]}
    pieces = large.get(scope["path"], [f"{size} bytes".encode()])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
        await send({"type": "http.response.body", "body": piece, "more_body": left > 0})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Few connections, and no patience."""
    bounds = Bounds(
        connections=20, head_seconds=1, body_seconds=1, reading_seconds=2, drain_seconds=2, drain_bytes=8 * MIB
    )
    with served(app, bounds) as url:
        yield url


@contextlib.contextmanager
def many(url: str, count: int, said: bytes = b"", receive_bytes: int | None = None) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(connected(url))
            if receive_bytes is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            with contextlib.suppress(ConnectionError):
                connection.sendall(said)
            connections.append(connection)
        yield connections


@pytest.mark.parametrize("said", [b"", HALF, head("GET", "/")], ids=["nothing", "half a head", "a request, then idle"])
def test_a_new_connection_closes_the_oldest_that_has_no_request(said: bytes) -> None:
    # Nothing ends by itself here.
    bounds = Bounds(connections=20, head_seconds=600, idle_seconds=600)
    with served(app, bounds) as url, many(url, 60, said) as connections:
        assert httpx2.get(url, timeout=30).text == "0 bytes"
        ended = 0
        for connection in connections:
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                answer(connection)
                ended += 1
        assert ended >= 60 - 20


def is_refused(url: str) -> bool:
    try:
        httpx2.get(url)
    except httpx2.TransportError:
        return True
    time.sleep(0.05)
    return False


def test_requests_that_run_are_not_closed_for_others(url: str) -> None:
    GO.clear()
    with served(app, Bounds(connections=3)) as url, many(url, 3, head("GET", "/wait")) as connections:
        # They wait for their answers; one more finds no place.
        time.sleep(4)
        assert any(is_refused(url) for _ in range(50))
        GO.set()
        for connection in connections:
            assert hears(connection, b"0 bytes")


@pytest.mark.parametrize(
    ("said", "receive_bytes"),
    [(head("GET", "/"), None), (head("GET", "/wait") * 2, None), (head("GET", "/large") * 5, 2048)],
    ids=["idle", "the next request before an answer", "answers that nobody reads"],
)
def test_who_has_just_come_is_not_closed_for_a_crowd(said: bytes, receive_bytes: int | None) -> None:
    GO.clear()
    bounds = Bounds(connections=20, head_seconds=600, idle_seconds=600, reading_seconds=600)
    with served(app, bounds) as url, many(url, 19, said, receive_bytes):
        time.sleep(4)
        with connected(url) as come, many(url, 6, said, receive_bytes):
            time.sleep(1)
            come.sendall(head("GET", "/"))
            assert hears(come, b"0 bytes")
        GO.set()


def test_who_sends_the_next_request_before_an_answer_is_closed_for_others() -> None:
    GO.clear()
    with served(app, Bounds(connections=3)) as url, many(url, 3, head("GET", "/wait") * 2):
        time.sleep(1)
        assert httpx2.get(url).text == "0 bytes"
        GO.set()


def test_the_slowest_body_is_closed_for_another() -> None:
    posted = head("POST", "/", content_length="410000")
    with served(app, Bounds(connections=3, body_seconds=600)) as url, many(url, 3, posted) as connections:
        slow, *others = connections
        for _ in range(40):
            for connection in others:
                connection.sendall(b"x" * 10_000)
            with contextlib.suppress(ConnectionError):
                slow.sendall(b"x" * 100)
            time.sleep(0.1)
        assert eventually_served(url)
        assert answer(slow) == b""
        for connection in others:
            connection.sendall(b"x" * 10_000)
            assert hears(connection, b"410000 bytes")


@pytest.mark.parametrize("path", ["/large", "/once"])
def test_those_that_do_not_read_their_answers_are_closed_for_others(path: str) -> None:
    with (
        served(app, Bounds(connections=10, reading_seconds=600)) as url,
        many(url, 10, head("GET", path) * 5, receive_bytes=2048) as connections,
    ):
        time.sleep(1)
        for connection in connections:
            # A little now and then is no reading.
            connection.recv(1024)
        assert eventually_served(url)


def eventually_served(url: str) -> bool:
    """Within 30 s."""
    return any(not is_refused(url) or time.sleep(0.5) for _ in range(60))


def test_no_request_begins_before_the_answer_to_the_last_is_read() -> None:
    BEGUN.clear()
    with served(app) as url, connected(url) as connection:
        connection.sendall(head("GET", "/once") * 3)
        time.sleep(2)
        assert BEGUN == ["/once"]
        received = 0
        while received < 48 * MIB:
            received += len(connection.recv(MIB))
        assert BEGUN == ["/once"] * 3


def test_a_head_has_its_time(url: str) -> None:
    with connected(url) as silent, connected(url) as slow:
        slow.sendall(HALF)
        for _ in range(100):
            # A byte now and then is no progress of a head.
            try:
                slow.sendall(b"x")
            except ConnectionError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the head may take for ever")
        assert answer(silent) == b""
    with connected(url) as slow:
        slow.sendall(HALF)
        told = answer(slow)
        assert told.startswith(b"HTTP/1.1 408 ")
        assert b"not complete within 1 s" in told


def test_a_head_has_its_size(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(HALF + b"x" * 300_000)
        told = answer(connection)
    assert told.startswith(b"HTTP/1.1 431 ")
    assert b"more than 16,384 bytes" in told


def test_a_head_has_a_hundred_headers(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(HALF + b"".join(b"x%d: y\r\n" % number for number in range(1000)) + b"\r\n")
        told = answer(connection)
    assert told.startswith(b"HTTP/1.1 431 ")
    assert b"more than 100 headers" in told


@pytest.mark.parametrize("drip", [b"", b"x", b"x" * 1300])
def test_a_body_makes_progress(url: str, drip: bytes) -> None:
    with connected(url) as connection:
        connection.sendall(head("POST", "/", content_length="1000000"))
        connection.settimeout(0.2)
        told = b""
        for _ in range(300):
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(drip)
                if told := connection.recv(1000):
                    break
        assert told.startswith(b"HTTP/1.1 408 ")
        assert b"more than 1 s behind 16,384 bytes per second" in told + answer(connection)


def test_a_slow_body_that_makes_progress_is_read(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(head("POST", "/", content_length="40000"))
        for _ in range(10):
            connection.sendall(b"x" * 4000)
            time.sleep(0.2)
        assert hears(connection, b"40000 bytes")


@pytest.mark.parametrize("size", [0, 500])
def test_a_client_that_reads_next_to_nothing_is_closed(url: str, size: int) -> None:
    with connected(url) as connection:
        connection.sendall(head("GET", "/large"))
        for _ in range(16):
            time.sleep(0.5)
            assert not size or connection.recv(size)
        # What was under way still arrives.
        assert len(answer(connection)) < 64 * MIB


def test_a_client_that_reads_slowly_is_not_closed(url: str) -> None:
    received = 0
    with connected(url) as connection:
        connection.sendall(head("GET", "/large", connection="close"))
        while piece := connection.recv(2 * MIB):
            received += len(piece)
            time.sleep(0.05)
    assert received > 64 * MIB


@pytest.mark.parametrize("headers", [{}, {"connection": "close"}])
def test_a_refusal_is_heard_by_who_still_sends(url: str, headers: dict[str, str]) -> None:
    with connected(url) as connection:
        connection.sendall(head("POST", "/unread", content_length=str(6 * MIB), **headers))
        for _ in range(6):
            connection.sendall(b"x" * MIB)
        assert hears(connection, b"0 bytes")


def test_the_rest_of_a_body_is_passed_over_within_bounds(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(head("POST", "/unread", content_length=str(2**40)))
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(1000):
                connection.sendall(b"x" * MIB)
    with connected(url) as connection:
        connection.sendall(head("POST", "/unread", content_length=str(2**40)))
        assert b"0 bytes" in answer(connection)


def test_nonsense_is_refused(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        with connected(url) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert answer(connection).startswith(b"HTTP/1.1 400 ")
        # In the middle of a body, and of the answer to it.
        for path in ("/", "/unread"):
            with connected(url) as connection:
                connection.sendall(head("POST", path, transfer_encoding="chunked") + b"nonsense\r\n")
                assert answer(connection)
    assert httpx2.get(url).is_success
    assert len(caplog.records) <= 1


def test_a_body_that_is_cut_small_is_refused(url: str) -> None:
    """Found one by one, 600,000 chunks of a byte stopped the others for seconds."""
    with connected(url) as connection:
        connection.sendall(head("POST", "/", transfer_encoding="chunked"))
        # It may be closed before all is sent.
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"1\r\nx\r\n" * 600_000 + b"0\r\n\r\n")
        told = answer(connection)
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b"1,000 chunks have less than 64 bytes" in told


def test_chunks_of_a_usual_size_are_read(url: str) -> None:
    assert httpx2.post(url, content=iter([b"x" * 100] * 20_000), timeout=60).text == "2000000 bytes"
    assert httpx2.post(url, content=iter([b"x"] * 900), timeout=60).text == "900 bytes"


COMMAND = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.front.http.test_connections import app
from qwen3_vl_client.front.http.serving import serve
serve(app, "127.0.0.1", int(sys.argv[2]))
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Served by a process with as few file handles as many systems give."""
    (port,) = free_ports("127.0.0.1", 1)
    log = tmp_path / "log"
    few = ("sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh")
    command = (*few, sys.executable, "-c", COMMAND, str(Path(__file__).parents[3]), str(port))
    with log.open("wb") as written:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(command, stdout=written, stderr=written, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(url)
                break
            time.sleep(0.05)
        yield url, log
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


@pytest.mark.parametrize(("count", "said"), [(1100, b""), (3000, HALF)])
def test_floods_stop_nobody_and_fill_no_log(program: tuple[str, Path], count: int, said: bytes) -> None:
    url, log = program
    with many(url, count, said):
        for _ in range(10):
            assert httpx2.get(url, timeout=30).is_success
        with httpx2.Client(base_url=url, timeout=30) as http:
            assert http.post("/", content=b"x" * MIB).text == f"{MIB} bytes"
    assert log.stat().st_size < 4000, log.read_text()
