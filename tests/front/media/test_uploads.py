"""Uploads that are refused before they end, that stall, or whose client goes away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.http.connections import Bounds
from qwen3_vl_client.front.settings import Settings
from tests.support.front import NOWHERE, connected, served, wait_until

MIB = 2**20
FILE = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
END = b"\r\n--XX--\r\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(media_root=tmp_path, url=NOWHERE, upload_quota_bytes=8 * MIB)


def partial(settings: Settings) -> list[Path]:
    return list((settings.media_root / "uploads" / "partial").iterdir())


def in_flight(settings: Settings) -> int:
    """As the index has it."""
    with closing(sqlite3.connect(settings.media_root / "uploads" / "index.sqlite")) as index:
        return int(index.execute("SELECT count(*) FROM files WHERE digest IS NULL").fetchone()[0])


def begin(url: str) -> bytes:
    """What a client sends that then sends no more."""
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Length: 100000000\r\n"
        "Content-Type: multipart/form-data; boundary=XX\r\n\r\n"
    )
    return head.encode() + FILE + bytes(MIB)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (FILE + bytes(30 * MIB) + END, "multipart/form-data; boundary=XX", 413, "at most 8,388,608"),
        (b"no form" + bytes(30 * MIB), "multipart/form-data; boundary=XX", 400, "cannot be read"),
        (bytes(30 * MIB), "application/json", 400, "multipart/form-data with a boundary is accepted"),
        (FILE + b"a" + END + bytes(30 * MIB), "multipart/form-data; boundary=XX", 200, "a.mp4"),
    ],
    ids=["quota", "no form", "another type", "more than a form"],
)
def test_who_is_refused_early_hears_why(
    settings: Settings, body: bytes, content_type: str, status: int, reason: str
) -> None:
    with served(create_app(settings)) as url, httpx2.Client(base_url=url, timeout=60) as http:
        for _ in range(3):
            answer = http.post("/v1/files", content=body, headers={"content-type": content_type})
            assert answer.status_code == status
            assert reason in answer.text
        assert partial(settings) == []


def test_one_more_upload_at_the_same_time_is_refused(settings: Settings) -> None:
    with served(create_app(settings)) as url, httpx2.Client(base_url=url, timeout=60) as http:
        connections = [connected(url) for _ in range(8)]
        for connection in connections:
            connection.sendall(begin(url))
        wait_until(lambda: in_flight(settings) == 8)
        refused = http.post("/v1/files", files={"file": ("a.mp4", b"content")})
        assert refused.status_code == 429
        assert "8 of your files are being uploaded; at most 8" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"]
        # Whoever goes away makes room.
        for connection in connections:
            connection.close()
        wait_until(lambda: in_flight(settings) == 0)
        assert partial(settings) == []
        assert http.post("/v1/files", files={"file": ("a.mp4", b"content")}).status_code == 200


def test_a_stalled_upload_ends_and_frees_what_was_reserved_for_it(settings: Settings) -> None:
    with served(create_app(settings), Bounds(body_seconds=0.5)) as url:
        connections = [connected(url) for _ in range(8)]
        for connection in connections:
            connection.sendall(begin(url))
        wait_until(lambda: in_flight(settings) > 0)
        wait_until(lambda: in_flight(settings) == 0)
        assert partial(settings) == []

        def body() -> Iterator[bytes]:
            yield FILE
            yield bytes(8 * MIB - 1)
            yield END

        headers = {"content-type": "multipart/form-data; boundary=XX"}
        with httpx2.Client(base_url=url, timeout=60) as http:
            assert http.post("/v1/files", content=body(), headers=headers).status_code == 200
        for connection in connections:
            connection.close()
