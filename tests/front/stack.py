"""Apps served as the commands serve them, and clients that speak HTTP badly."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from qwen3_vl_client.front.connections import Bounds, configured


@contextlib.contextmanager
def served(app: Any, bounds: Bounds | None = None, **options: Any) -> Iterator[str]:
    """The app on a free port of 127.0.0.1; gives its `http://127.0.0.1:PORT`."""
    server = uvicorn.Server(configured(app, bounds=bounds, grace_seconds=2, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the app did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def connected(url: str, seconds: float = 60) -> socket.socket:
    """A connection on which nothing was said."""
    where = urlsplit(url)
    return socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=seconds)


def head(method: str, path: str, **headers: str) -> bytes:
    """A request's head."""
    named = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            received += piece
    return bytes(received)


def hears(connection: socket.socket, words: bytes) -> bool:
    """Whether these words come, sooner or later; the connection may stay open."""
    received = bytearray()
    while words not in received:
        piece = connection.recv(65_536)
        if not piece:
            return False
        received += piece
    return True
