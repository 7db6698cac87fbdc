"""The proxy for untrusted networks, as it is but for addresses and its certificate: Envoy before a small upstream."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import envoy
import httpx2
import pytest
import yaml

from build.serve.server.triton import free_ports

CONFIGURATION = Path(__file__).parents[2] / "docker" / "proxy" / "envoy.yaml"
ENVOY = Path(envoy.__file__).parent / "_bin" / "envoy"
FRONT, TRITON = "video.example.com", "triton.example.com"


class Upstream(BaseHTTPRequestHandler):
    """Says what reached it; `…/stream` sends an event and the next one only when it is told to go on."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()
    seen: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.seen.append(self.path)
        if "stream" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"data: first\n\n")
            self.go_on.wait(30)
            self.wfile.write(b"data: last\n\n")
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length", 0))
        body = json.dumps(
            {
                "path": self.path,
                "port": self.server.server_address[1],
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "bytes": len(self.rfile.read(length)),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """An upstream for each cluster, by its name."""
    servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), Upstream) for name in ("front", "triton")}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {name: server.server_address[1] for name, server in servers.items()}
    Upstream.go_on.set()
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def configuration(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The file with this machine's addresses in place of the placeholders; and the port of its listener."""
    folder = tmp_path_factory.mktemp("envoy")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={FRONT} -keyout {key} -out {certificate}"
    subprocess.run(make.split(), check=True, capture_output=True)
    text = CONFIGURATION.read_text().replace("/etc/envoy/tls", str(folder))
    content: dict[str, Any] = yaml.safe_load(text)
    (listener,) = content["static_resources"]["listeners"]
    (port,) = free_ports("127.0.0.1", 1)
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    for cluster in content["static_resources"]["clusters"]:
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        address = {"address": "127.0.0.1", "port_value": ports[cluster["name"]]}
        endpoint["endpoint"]["address"]["socket_address"] = address
    file = folder / "envoy.yaml"
    file.write_text(yaml.safe_dump(content))
    return file, port


@pytest.fixture(scope="module")
def proxy(configuration: tuple[Path, int]) -> Iterator[int]:
    """The port of the running proxy."""
    file, port = configuration
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    log = file.with_name("envoy.log")
    with log.open("wb") as output:
        process = subprocess.Popen([ENVOY, "-c", file, *options], stdout=output, stderr=output)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def request(port: int, method: str, path: str, host: str = FRONT, **options: Any) -> httpx2.Response:
    headers = {"Host": host, **options.pop("headers", {})}
    return httpx2.request(
        method, f"https://127.0.0.1:{port}{path}", headers=headers, verify=False, timeout=60, **options
    )


def exchange(port: int, head: str) -> bytes:
    """The first line of the answer to bytes that no client library would send."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 30) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(head.encode())
        return connection.recv(65536).split(b"\r\n")[0]


def test_envoy_accepts_the_file(configuration: tuple[Path, int]) -> None:
    run = subprocess.run([ENVOY, "--mode", "validate", "-c", configuration[0]], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("DELETE", "/v1/files/file-1"),
        ("GET", "/"),
        ("GET", "/static/page.js"),
        ("POST", "/files"),
        ("GET", "/files/1/picture?at=2"),
        ("POST", "/ask"),
        ("POST", "/summarize"),
    ],
)
def test_the_api_and_the_page_are_reached(proxy: int, ports: dict[str, int], method: str, path: str) -> None:
    answer = request(proxy, method, path)
    assert answer.status_code == 200
    assert (answer.json()["port"], answer.json()["path"]) == (ports["front"], path)
    assert "strict-transport-security" in answer.headers


@pytest.mark.parametrize("model", ["generate", "generate_stream"])
def test_a_question_to_triton_is_let_through_under_its_own_name(proxy: int, ports: dict[str, int], model: str) -> None:
    path = f"/v2/models/qwen3_vl/{model}"
    Upstream.go_on.set()
    assert request(proxy, "POST", path, TRITON, json={"text_input": "?"}).status_code == 200
    assert request(proxy, "POST", path, FRONT, json={"text_input": "?"}).status_code == 404


@pytest.mark.parametrize(
    ("host", "path"),
    [
        *((FRONT, path) for path in ("/metrics", "/health", "/ready", "/docs", "/openapi.json", "/v2/health/ready")),
        *((FRONT, path) for path in ("/v1", "/askance", "/v1/../metrics", "/static/../metrics", "//metrics")),
        *((FRONT, path) for path in ("/v1/..%2Fmetrics", "/v1%5C..%5Cmetrics", "/%2e%2e/metrics")),
        *((TRITON, path) for path in ("/", "/v2", "/metrics", "/v2/health/ready", "/v2/models/qwen3_vl/infer")),
        *((TRITON, f"/v2/models/{model}/generate") for model in ("decoder", "vision_encoder", "video_preprocess")),
        *((TRITON, f"/v2/{call}") for call in ("repository/index", "repository/models/decoder/load", "logging")),
        (TRITON, "/v2/models/qwen3_vl/../decoder/generate"),
        (TRITON, "/v2/systemsharedmemory/region/a/register"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_else_is(proxy: int, method: str, host: str, path: str) -> None:
    Upstream.seen.clear()
    line = exchange(proxy, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")
    assert line.split()[1] in (b"400", b"404")
    assert Upstream.seen == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", f"{FRONT}.evil.example", ""])
def test_a_foreign_name_is_refused(proxy: int, host: str) -> None:
    line = exchange(proxy, f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n")
    assert line.split()[1] in (b"421", b"400")


def test_events_are_not_held_back(proxy: int) -> None:
    Upstream.go_on.clear()
    url = f"https://127.0.0.1:{proxy}/v1/stream"
    with httpx2.stream("GET", url, headers={"Host": FRONT}, verify=False, timeout=60) as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == b"data: first\n\n"
        Upstream.go_on.set()
        assert next(pieces) == b"data: last\n\n"


def test_what_a_client_says_of_its_address_is_not_passed_on(proxy: int) -> None:
    forged = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7", "X-Forwarded-Proto": "http"}
    headers = request(proxy, "GET", "/v1/models", headers=forged).json()["headers"]
    # One address, the connection's: Envoy writes this machine's own for loopback.
    assert ipaddress.ip_address(headers["x-forwarded-for"]) != ipaddress.ip_address("203.0.113.7")
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == FRONT
    assert "forwarded" not in headers


def test_bounds_of_heads_and_bodies(proxy: int) -> None:
    head = f"GET /v1/models HTTP/1.1\r\nHost: {FRONT}\r\n"
    assert exchange(proxy, head + f"X-Long: {'x' * 20000}\r\n\r\n").split()[1] == b"431"
    assert exchange(proxy, head + "".join(f"X-{i}: 1\r\n" for i in range(100)) + "\r\n").split()[1] == b"431"
    upload = f"POST /v1/files HTTP/1.1\r\nHost: {FRONT}\r\nContent-Length: {{}}\r\n\r\n"
    assert exchange(proxy, upload.format(20 * 2**30 + 1)).split()[1] == b"413"
    assert request(proxy, "POST", "/v1/files", content=b"x" * 2**21).json()["bytes"] == 2**21
    question = "/v2/models/qwen3_vl/generate"
    assert request(proxy, "POST", question, TRITON, content=b"x" * (2**20 + 1)).status_code == 413


def test_what_comes_to_triton_in_many_pieces_arrives_in_one(proxy: int) -> None:
    pieces = (b" " for _ in range(5000))
    answer = request(proxy, "POST", "/v2/models/qwen3_vl/generate", TRITON, content=pieces).json()
    assert answer["bytes"] == 5000
    assert "transfer-encoding" not in answer["headers"]


def test_a_head_that_does_not_end_is_not_waited_for(proxy: int) -> None:
    """The bound is 10 seconds; a busy machine has a minute."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", proxy), 60) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {FRONT}\r\n".encode())
        assert connection.recv(65536).split()[1:2] in ([b"408"], [])
