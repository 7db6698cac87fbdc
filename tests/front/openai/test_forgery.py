"""Server-side request forgery and paths: whatever a URL tries, nothing comes back but a refusal."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest

from qwen3_vl_client import InvalidRequest
from qwen3_vl_client.front.media.fetch import Fetcher, is_public
from qwen3_vl_client.front.settings import Settings
from tests.support.front import running

PUBLIC = "93.184.216.34"


class Site(ThreadingHTTPServer):
    """Answers by path, and notes who was asked for what."""

    daemon_threads = True

    def __init__(self, clip: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.clip = clip
        self.asked: list[tuple[str, str]] = []

    @property
    def port(self) -> int:
        return self.server_address[1]


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["host"], self.path))
        match self.path.split("?")[0].split("/")[1:]:
            case ["clip.mp4"] | ["gtv-videos-bucket", "sample", "ForBiggerFun.mp4"]:
                self.answer(200, self.server.clip)
            case ["moved", target]:
                self.answer(302, b"", location=f"/{target}")
            case ["out"]:
                self.answer(302, b"", location=self.path.partition("?")[2])
            case ["round"]:
                self.answer(302, b"", location="/round")
            case ["slow"]:
                self.answer(200, b"", **{"content-length": "1000"})
                self.server.held.wait()
            case ["endless"]:
                self.answer(200, b"x" * 2**16, **{"connection": "close"})
            case ["packed"]:
                self.answer(200, b"", **{"content-encoding": "gzip"})
            case _:
                self.answer(404, b"secret words of a private page")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Network(httpcore2.AnyIOBackend):
    """Notes the addresses that are connected to; all lead to the site."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connected: list[str] = []

    async def connect_tcp(self, host: str, port: int, *arguments: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        self.connected.append(host)
        return await super().connect_tcp("127.0.0.1", self.port, *arguments, **options)


class Names:
    """A name server: each name's answers, one after the other, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(each) for name, each in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answers = self.answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(scope="module")
def site(clip: bytes) -> Iterator[Site]:
    with Site(clip) as site:
        site.held = threading.Event()
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield site
        site.held.set()
        site.shutdown()
        thread.join()


@pytest.fixture
def network(site: Site) -> Network:
    site.asked.clear()
    return Network(site.port)


def fetch(network: Network, url: str, names: Names | None = None, **limits: float) -> bytes:
    names = names or Names(media_example=[[PUBLIC]], cdn_example=[[PUBLIC]])
    bounds: dict[str, Any] = {"max_bytes": 2**20, "max_seconds": 5.0, **limits}
    fetcher = Fetcher(["media.example", "CDN.example", "media.example:8080"], resolve=names, network=network, **bounds)
    received: list[bytes] = []

    async def write(piece: bytes) -> None:
        received.append(piece)

    asyncio.run(fetcher.fetch(url, "url", write))
    return b"".join(received)


@pytest.mark.parametrize(
    "url",
    [
        "http://media.example/clip.mp4",
        "HTTP://Media.Example:80/clip.mp4?a=b#c",
        "http://media.example:8080/clip.mp4",
        "http://media.example/moved/clip.mp4",
        "http://media.example/out?http://cdn.example/clip.mp4",
    ],
)
def test_an_allowed_host_is_asked(network: Network, clip: bytes, url: str) -> None:
    assert fetch(network, url) == clip
    assert set(network.connected) == {PUBLIC}


NOWHERE = [
    "http://other.example/clip.mp4",
    "http://media.example.evil.example/",
    "http://media.example:81/",
    "http://media.example:443/",
    "http://media.example./",
    "http://media.example@127.0.0.1/",
    "http://127.0.0.1#@media.example/",
    "http://127.0.0.1\\@media.example/",
    "http://media.example\\@127.0.0.1/",
    "http://user:password@media.example/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://0.0.0.0/",
    "http://0/",
    "http://localhost/",
    "http://localhost.localdomain/",
    "http://ip6-localhost/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[fe80::1%25lo]/",
    "http://[64:ff9b::7f00:1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/",
    "http://10.0.0.1/",
    "http://192.168.0.1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://media。example/",
    "http:///clip.mp4",
    "http://",
    "http:media.example/clip.mp4",
    "http://media.example:99999/",
    "http://[media.example/",
    "http://media.example/a b",
    "http://media.example/\r\nX: y",
    "http://media.example/é",
    "ftp://media.example/clip.mp4",
    "gopher://media.example/",
]


@pytest.mark.parametrize("url", NOWHERE)
def test_nobody_else_is_asked(network: Network, url: str) -> None:
    names = Names(media_example=[[PUBLIC]])
    with pytest.raises(InvalidRequest):
        fetch(network, url, names)
    assert (names.asked, network.connected) == ([], [])


@pytest.mark.parametrize(
    "url",
    # Without an authority it is a path of the same host; the others do not fit a query.
    [url for url in NOWHERE if url.isascii() and re.match("[a-z]+://[^/]", url) and not set(url) & set(" \n#")],
)
def test_redirects_lead_to_nobody_else(network: Network, site: Site, url: str) -> None:
    with pytest.raises(InvalidRequest):
        fetch(network, f"http://media.example/out?{url}")
    assert [path.partition("?")[0] for _, path in site.asked] == ["/out"]
    assert network.connected == [PUBLIC]


# Every row of IANA's special-purpose registries (https://www.iana.org/assignments/iana-ipv4-special-registry and
# -ipv6-special-registry), multicast, and what was taken out of them.
SPECIAL = [
    "0.0.0.0/8",
    "0.0.0.0/32",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.0/29",
    "192.0.0.8/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.0.0.170/32",
    "192.0.0.171/32",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.88.99.2/32",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::1/128",
    "::/128",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001::/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:2::/48",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:30::/28",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3ffe::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


@pytest.mark.parametrize("network", SPECIAL)
def test_no_special_purpose_address_is_public(network: str) -> None:
    parsed = ipaddress.ip_network(network)
    middle = parsed[parsed.num_addresses // 2]
    assert not any(is_public(str(address)) for address in (parsed[0], middle, parsed[-1]))


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "192.0.0.8",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "2001::1",
    "fe80::1",
    "fe80::1%lo",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "not an address",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_allowed_name_that_points_inside_is_not_followed(network: Network, address: str) -> None:
    assert not is_public(address)
    for answer in ([address], [PUBLIC, address], [address, PUBLIC]):
        with pytest.raises(InvalidRequest, match="not a public host"):
            fetch(network, "http://media.example/clip.mp4", Names(media_example=[answer]))
    assert network.connected == []


@pytest.mark.parametrize(
    "address",
    [
        *(
            "8.8.8.8",
            "93.184.216.34",
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.88.98.1",
            "198.20.0.1",
            "223.255.255.1",
        ),
        *("2606:4700:4700::1111", "2a00:1450::1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "3fff:1000::1"),
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_a_name_that_changes_its_answer_is_asked_once_and_that_answer_is_used(network: Network, clip: bytes) -> None:
    names = Names(media_example=[[PUBLIC], ["127.0.0.1"]])
    assert fetch(network, "http://media.example/clip.mp4", names) == clip
    assert names.asked == ["media.example"]
    assert network.connected == [PUBLIC]


def test_a_name_that_changes_its_answer_between_redirects_is_refused(network: Network, clip: bytes) -> None:
    names = Names(media_example=[[PUBLIC]], cdn_example=[["127.0.0.1"]])
    with pytest.raises(InvalidRequest, match="not a public host"):
        fetch(network, "http://media.example/out?http://cdn.example/clip.mp4", names)
    assert network.connected == [PUBLIC]


def test_the_system_is_asked_once_for_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver that is used when no test brings one."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in (PUBLIC, "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    fetcher = Fetcher(["media.example"], max_bytes=1, max_seconds=1)
    with pytest.raises(InvalidRequest, match="not a public host"):
        asyncio.run(fetcher.fetch("http://media.example/", "url", lambda piece: asyncio.sleep(0)))


def test_certificates_are_checked_against_the_name(network: Network) -> None:
    # The site speaks no TLS: what matters is that it is spoken to, and that the failure is a refusal.
    with pytest.raises(InvalidRequest, match="could not be fetched"):
        fetch(network, "https://media.example/clip.mp4")
    assert network.connected == [PUBLIC]


@pytest.mark.parametrize(
    ("path", "limits", "reason"),
    [
        ("round", {}, "redirected more than 3 times"),
        ("nothing", {}, "its host answered 404"),
        ("packed", {}, "compressed"),
        ("slow", {"max_seconds": 0.3}, "within 0.3 s"),
        ("endless", {"max_bytes": 2**10}, "larger than 1,024 bytes"),
    ],
)
def test_what_is_wrong_is_refused(network: Network, path: str, limits: dict[str, float], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refused:
        fetch(network, f"http://media.example/{path}", **limits)
    assert "secret" not in str(refused.value)


# From here on through the API itself.

VIDEO_URL = "http://commondatastorage.googleapis.com/gtv-videos-bucket/sample/ForBiggerFun.mp4"
# As it stands in vLLM's documentation of multimodal inputs.
VLLM_BODY = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What's in this video?"},
                {"type": "video_url", "video_url": {"url": VIDEO_URL}, "uuid": VIDEO_URL},
            ],
        }
    ],
    "model": "test-model",
    "max_completion_tokens": 64,
}


@pytest.fixture(scope="module")
def http(api: str) -> httpx2.Client:
    return httpx2.Client(base_url=api, headers={"authorization": "Bearer key-of-ann"}, timeout=60)


def ask(http: httpx2.Client, url: str, kind: str = "video", **headers: str) -> httpx2.Response:
    part = {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
    body = {"model": "test-model", "messages": [{"role": "user", "content": [part]}], "max_tokens": 2}
    return http.post("/v1/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("url", NOWHERE)
def test_the_api_fetches_from_nowhere_unless_told(http: httpx2.Client, url: str) -> None:
    response = ask(http, url)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_api_fetches_from_an_allowed_host(settings: Settings, network: Network, media_root: Path) -> None:
    hosts = ["media.example", "commondatastorage.googleapis.com"]
    names = Names(media_example=[[PUBLIC]], commondatastorage_googleapis_com=[[PUBLIC]])
    fetcher = Fetcher(hosts, max_bytes=2**20, max_seconds=5, resolve=names, network=network)
    with running(replace(settings, api_keys={}), fetcher) as url, httpx2.Client(base_url=url, timeout=60) as http:
        fetched, named = ask(http, "http://media.example/clip.mp4"), ask(http, "clips/clip.mp4")
        assert fetched.status_code == 200, fetched.text
        assert fetched.json()["usage"]["prompt_tokens"] == named.json()["usage"]["prompt_tokens"]
        assert http.post("/v1/chat/completions", json=VLLM_BODY).status_code == 200
        assert ask(http, "http://media.example/nothing").status_code == 400
        assert http.get("/v1/files").json()["data"] == []
    kept = [path for path in (media_root / "uploads" / "content").rglob("*") if path.is_file()]
    assert all(path.read_bytes() != b"secret words of a private page" for path in kept)


@pytest.fixture(scope="module")
def outside(media_root: Path, clip: bytes) -> Path:
    """A readable video outside of the media root, and links to it from within."""
    secret = media_root.parent / f"{media_root.name}-secret"
    secret.mkdir()
    (secret / "clip.mp4").write_bytes(clip)
    (media_root / "link.mp4").symlink_to(secret / "clip.mp4")
    (media_root / "folder").symlink_to(secret)
    (media_root / "loop").symlink_to(media_root / "loop")
    (media_root / "inside.mp4").symlink_to(media_root / "clips" / "clip.mp4")
    return secret


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize(
    "path",
    [
        "../{name}/clip.mp4",
        "clips/../../{name}/clip.mp4",
        "clips/%2e%2e/%2e%2e/{name}/clip.mp4",
        "..%2f{name}%2fclip.mp4",
        "..\\{name}\\clip.mp4",
        "....//{name}/clip.mp4",
        "{outside}/clip.mp4",
        "//{outside}/clip.mp4",
        "file://{outside}/clip.mp4",
        "file:{outside}/clip.mp4",
        "file://localhost{outside}/clip.mp4",
        "file://../{name}/clip.mp4",
        "file://%2e%2e/{name}/clip.mp4",
        "file://%2e%2e%2f{name}%2fclip.mp4",
        "file://%252e%252e/{name}/clip.mp4",
        "FILE://{outside}/clip.mp4",
        "link.mp4",
        "folder/clip.mp4",
        "loop",
        "clips",
        ".",
        "",
        "/",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "~/clip.mp4",
        "clips/clip.mp4\u0000",
        "clips/clip.mp4/",
        "x" * 5000,
        "uploads/index.sqlite",
        "./uploads/../uploads/index.sqlite",
    ],
)
def test_no_path_leads_out_of_the_media_root(http: httpx2.Client, outside: Path, path: str, kind: str) -> None:
    if path == "clips/clip.mp4/":
        path += "x"
    response = ask(http, path.format(outside=outside, name=outside.name), kind)
    assert response.status_code == 404, response.text
    assert response.json()["error"]["message"].endswith("there is no such file below the media root")


def test_a_link_within_the_media_root_is_followed(http: httpx2.Client, outside: Path) -> None:
    assert ask(http, "inside.mp4").status_code == 200


def test_other_users_files_do_not_exist(http: httpx2.Client, media_root: Path, clip: bytes) -> None:
    bob = {"authorization": "Bearer key-of-bob"}
    stored = http.post("/v1/files", files={"file": ("mine.mp4", clip)}).json()
    unknown = "file-" + "0" * 32
    try:
        assert ask(http, stored["id"]).status_code == 200
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            theirs = http.request(method, f"/v1/files/{stored['id']}{path}", headers=bob)
            nobodys = http.request(method, f"/v1/files/{unknown}{path}", headers=bob)
            assert theirs.status_code == nobodys.status_code == 404
            assert theirs.text.replace(stored["id"], unknown) == nobodys.text
        assert ask(http, stored["id"], **bob).status_code == 404
        assert http.get("/v1/files", headers=bob).json()["data"] == []
        assert http.get("/v1/files", params={"after": stored["id"]}, headers=bob).status_code == 400
        # Nor by where it lies, which is known to whoever has the same file and knows the owner's name.
        digest = hashlib.sha256(hashlib.sha256(b"ann").digest() + clip).hexdigest()
        content = media_root / "uploads" / "content" / digest[:2] / digest
        assert content.read_bytes() == clip
        for path in (content.relative_to(media_root), content):
            assert ask(http, str(path)).status_code == ask(http, str(path), **bob).status_code == 404
        assert stored in http.get("/v1/files").json()["data"]
    finally:
        http.delete(f"/v1/files/{stored['id']}")
