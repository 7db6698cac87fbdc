"""The health endpoint answers probes while others hold its connections, and nobody who was led to it by a name."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from build.serve.server.log_file import open_log, trim_log
from build.serve.server.triton import free_ports
from build.serve.supervisor import health
from build.serve.supervisor.status import Status


@pytest.fixture
def port() -> Iterator[int]:
    (found,) = free_ports("127.0.0.1", 1)
    status = Status(ready=True, phase="ready", restarts=0, stages={})
    with health.health_endpoint("127.0.0.1", found, lambda: status, names=["gpu-7.example"]):
        yield found


def ask(port: int, host: str, path: str = "/ready") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    return response.status, response.read()


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3:8003", "[::1]:8003", "localhost", "GPU-7.example:8003"])
def test_known_hosts_are_answered(port, host):
    status, body = ask(port, host)
    assert status == 200
    assert json.loads(body)["ready"]


@pytest.mark.parametrize("host", ["elsewhere.example", "elsewhere.example:8003", "127.0.0.1.elsewhere.example", "["])
def test_foreign_hosts_are_refused(port, host):
    assert ask(port, host)[0] == 421


def test_idle_and_half_sent_connections_keep_nobody_out(port):
    opened = []
    for index in range(4 * health.MAX_CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.sendall(b"GET /ready HTTP/1.1\r\nX: " if index % 2 else b"")
        opened.append(connection)
    assert ask(port, "127.0.0.1")[0] == 200
    for connection in opened[: 2 * health.MAX_CONNECTIONS]:
        assert connection.recv(1) == b""
    for connection in opened:
        connection.close()


def test_a_connection_that_stays_is_closed(port, monkeypatch):
    monkeypatch.setattr(health, "MAX_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        assert connection.recv(1) == b""


def test_a_log_is_its_users_and_bounded(tmp_path):
    path = tmp_path / "triton.log"
    with open_log(path) as log:
        log.write(b"a" * 100)
        log.flush()
        trim_log(path, max_bytes=50)
        log.write(b"b" * 10)
    assert path.read_bytes() == b"b" * 10
    kept = path.with_name("triton.log.1")
    assert kept.read_bytes() == b"a" * 100
    assert [oct(file.stat().st_mode & 0o777) for file in (path, kept)] == ["0o600"] * 2
    trim_log(path, max_bytes=50)
    assert path.read_bytes() == b"b" * 10
    path.unlink()
    trim_log(path)
