"""The attacker's means: requests as most clients send them, connections that are held, and costly files."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perf.attack import wire
from perf.attack.kinds.hostile_media import EDITS, box, large_picture, many_edits, many_lines, replaced
from perf.attack.kinds.requests import empty_lists


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does one thing with its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def refuse_and_drain(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nX-Why: size\r\n\r\nlong")
    while connection.recv(2**20):
        pass


def test_a_refusal_that_comes_before_the_body_has_ended_is_read() -> None:
    with serving(refuse_and_drain) as url:
        answer = wire.send(url, "POST", "/", bytes(32 * 2**20))
    assert (answer.status, answer.body, answer.headers["x-why"], answer.refused) == (413, b"long", "size", True)


def test_a_connection_that_is_closed_without_an_answer_is_told_apart() -> None:
    with serving(lambda connection: None) as url:
        answer = wire.send(url, "GET", "/")
    assert answer.status == 0
    assert not answer.refused


def test_a_connection_is_seen_to_be_closed() -> None:
    ending = threading.Event()
    with serving(lambda connection: bool(ending.wait(10)) or None) as url:
        connection = wire.connect(url)
        assert not wire.is_closed(connection)
        ending.set()
        connection.setblocking(True)
        connection.recv(1)
        assert wire.is_closed(connection)
        connection.close()


def test_a_box_is_replaced_with_the_lengths_around_it() -> None:
    file = box(b"ftyp", b"isom") + box(
        b"moov", box(b"mvhd", b"") + box(b"trak", box(b"tkhd", b"") + box(b"edts", b"x"))
    )
    made = replaced(file, (b"moov", b"trak", b"edts"), box(b"edts", b"longer"))
    assert made == box(b"ftyp", b"isom") + box(
        b"moov", box(b"mvhd", b"") + box(b"trak", box(b"tkhd", b"") + box(b"edts", b"longer"))
    )
    with pytest.raises(ValueError, match="moov/udta"):
        replaced(file, (b"moov", b"udta"), b"")


def test_costly_files_are_what_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "edits.mp4"
    many_edits(path)
    content = path.read_bytes()
    assert struct.unpack_from(">I", content, content.index(b"elst") + 8) == (EDITS,)
    assert len(large_picture()) < 100_000
    assert many_lines().count(b" --> ") == 150_000
    assert len(empty_lists(1)) == pytest.approx(2**20, rel=0.01)
