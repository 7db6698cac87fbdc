"""A name or a page that is not this server's: neither is answered as if it were."""

from __future__ import annotations

import socket

import httpx2
import pytest
from fastapi import FastAPI, Request

from qwen3_vl_client.front.http.hosts import Hosts
from qwen3_vl_client.front.settings import Settings
from tests.support.front import served

ANN = {"authorization": "Bearer key-of-ann"}
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "localhost:80@evil.example",
    "10.0.0.7",
    "",
    "[",
]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_host_is_refused(api: str, page: str, host: str) -> None:
    for url in (f"{api}/v1/models", f"{page}/", f"{page}/files", f"{page}/static/app.js"):
        response = httpx2.get(url, headers={"host": host, **ANN})
        assert response.status_code == 421
        assert repr(host) in response.text or host in response.text
        assert "--public-host" in response.text
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_probes_come_by_address_and_by_no_foreign_name(api: str, path: str) -> None:
    for host in ("10.0.0.7:8080", "[fd00::7]:8080", "127.0.0.1"):
        assert httpx2.get(f"{api}{path}", headers={"host": host}).status_code != 421
    assert httpx2.get(f"{api}{path}", headers={"host": "evil.example"}).status_code == 421


def test_loopback_has_many_spellings(api: str) -> None:
    port = api.rpartition(":")[2]
    for host in ("localhost", f"LOCALHOST:{port}", "localhost.", "127.0.0.1", f"[::1]:{port}", "[::1]"):
        assert httpx2.get(f"{api}/v1/models", headers={"host": host, **ANN}).status_code == 200


def test_the_names_of_a_server() -> None:
    one = Hosts.listening("10.0.0.7")
    assert one.accepts("10.0.0.7:80")
    assert one.accepts("localhost")
    assert not one.accepts("10.0.0.8")
    every = Hosts.listening("0.0.0.0")
    assert every.accepts("10.0.0.8")
    assert every.accepts("[fd00::1]:80")
    assert every.accepts(socket.gethostname())
    assert not every.accepts("evil.example")
    public = Hosts.listening("::", ["Videos.example.", "other.example"])
    assert public.accepts("videos.example:443")
    assert public.accepts("localhost:443")
    assert not public.accepts("10.0.0.8")
    assert not public.accepts("sub.videos.example")


CHANGING = [
    ("POST", "/v1/files"),
    ("POST", "/v1/chat/completions"),
    ("DELETE", "/v1/files/file-1"),
    ("PUT", "/v1/files"),
]
FOREIGN_PAGES = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:1"},
    {"origin": "http://[broken"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN_PAGES, ids=str)
def test_pages_of_others_change_nothing(api: str, page: str, headers: dict[str, str]) -> None:
    for method, path in CHANGING:
        response = httpx2.request(method, f"{api}{path}", headers={**ANN, **headers}, content=b"x" * 100)
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "foreign_origin"
    response = httpx2.post(f"{page}/files", params={"name": "a.mp4"}, headers=headers, content=b"x" * 100)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "foreign_origin")
    # Reading is harmless: such a page sees no answer.
    assert httpx2.get(f"{api}/v1/models", headers={**ANN, **headers}).status_code == 200


def test_own_pages_and_programs_may(api: str, page: str, settings: Settings) -> None:
    own = [
        {},
        {"origin": api},
        {"origin": api, "sec-fetch-site": "same-origin"},
        {"origin": api, "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://page.example", "sec-fetch-site": "cross-site"},
    ]
    for headers in own:
        response = httpx2.delete(f"{api}/v1/files/file-1", headers={**ANN, **headers})
        assert response.status_code == 404, headers
    assert httpx2.delete(f"{page}/files/file-1", headers={"origin": page}).status_code == 404


def test_only_a_trusted_proxy_says_how_a_request_came() -> None:
    app = FastAPI()

    @app.get("/")
    def told(request: Request) -> list[str]:
        assert request.client is not None
        return [request.url.scheme, request.client.host]

    forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"}
    with served(app) as url:
        assert httpx2.get(url, headers=forwarded).json() == ["http", "127.0.0.1"]
    with served(app, trusted_proxies=["10.0.0.0/8"]) as url:
        assert httpx2.get(url, headers=forwarded).json() == ["http", "127.0.0.1"]
    with served(app, trusted_proxies=["127.0.0.0/8"]) as url:
        assert httpx2.get(url, headers=forwarded).json() == ["https", "203.0.113.9"]
