"""HTTP and sockets as an attacker uses them: whole requests, and pieces of them that are held."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 2.5
MAX_FAILURES = 5
"""Connections that are not accepted, until no more are tried."""


@dataclass(frozen=True)
class Answer:
    """status: 0 where the connection was closed without an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def refused(self) -> bool:
        """Whether the server says that it will not, or that it has no room."""
        return 400 <= self.status < 500 or self.status in (501, 503, 507)

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        if not self.status:
            return "closed without an answer"
        return f"{self.status} {self.body[:100].decode(errors='replace')}".strip()


def send(
    url: str,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Answer:
    """One request on a connection of its own. The whole body is sent before the answer is read, as most clients do;
    a body that is no bytes is sent in chunks.

    Raises:
        TimeoutError: nothing was heard for so long.
        OSError: nobody listens.
    """
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=timeout_seconds)
    chunked = body is not None and not isinstance(body, bytes)
    try:
        connection.connect()
        # An answer may have come before the server stopped reading.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            named = {"Transfer-Encoding": "chunked"} if chunked else {}
            connection.request(method, path, body, {**named, **(headers or {})}, encode_chunked=chunked)
        try:
            response = connection.getresponse()
            # Names of headers are the same in any case.
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, response.read())
        except (http.client.HTTPException, BrokenPipeError, ConnectionResetError):
            return Answer(0, {}, b"")
    finally:
        connection.close()


def send_json(
    url: str, path: str, body: object, headers: Mapping[str, str] | None = None, *, timeout_seconds: float = 30.0
) -> Answer:
    """POST of an object."""
    content = json.dumps(body).encode()
    named = {"Content-Type": "application/json", **(headers or {})}
    return send(url, "POST", path, content, named, timeout_seconds=timeout_seconds)


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def multipart(name: str, content: bytes, purpose: str = "user_data") -> tuple[bytes, dict[str, str]]:
    """The body of an upload to the API, and its headers."""
    line = "--edge\r\nContent-Disposition: form-data; name="
    body = (
        f'{line}"purpose"\r\n\r\n{purpose}\r\n{line}"file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n--edge--\r\n"
    )
    return body, {"Content-Type": "multipart/form-data; boundary=edge"}


def connect(url: str, *, receive_bytes: int | None = None, timeout_seconds: float = 5.0) -> socket.socket:
    """A connection. `receive_bytes`: how much the kernel takes in while nobody reads."""
    where = urlsplit(url)
    connection = socket.socket(socket.AF_INET6 if ":" in str(where.hostname) else socket.AF_INET)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(timeout_seconds)
    try:
        connection.connect((where.hostname, where.port))
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def held(url: str, count: int, content: bytes = b"", *, receive_bytes: int | None = None) -> Iterator[int]:
    """Opens as many connections as are accepted, sends the content on each, and holds them; gives their number."""
    connections: list[socket.socket] = []
    failures = 0
    try:
        for _ in range(count):
            try:
                connection = connect(url, receive_bytes=receive_bytes, timeout_seconds=CONNECT_SECONDS)
            except OSError:
                # A queue that is full now has room later, unless nobody accepts any more.
                if (failures := failures + 1) > MAX_FAILURES:
                    break
                continue
            connections.append(connection)
            # One that the server has closed already holds nothing.
            with contextlib.suppress(OSError):
                connection.sendall(content)
        yield len(connections)
    finally:
        for connection in connections:
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed it; what it has sent before is read and forgotten."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def head(url: str, method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A request's head; with an empty line at its end."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in (headers or {}).items()), "", ""]).encode()


def allow_many_connections() -> None:
    """Raises this process's own bound on handles as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
