"""The application as its command serves it, a real server on a small random checkpoint behind it, and clients that
speak HTTP badly."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.http.connections import Bounds
from qwen3_vl_client.front.http.serving import configured
from qwen3_vl_client.front.media.fetch import Fetcher
from qwen3_vl_client.front.settings import Settings
from tests.support.media import make_image, make_video
from tests.support.serving import Server

NOWHERE = "127.0.0.1:9"
"""An address at which no server is."""
KEYS = {"ann": "key-of-ann", "bob": "key-of-bob"}


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


def running(settings: Settings, fetcher: Fetcher | None = None) -> AbstractContextManager[str]:
    """The application on a free port of 127.0.0.1; gives its `http://127.0.0.1:PORT`."""
    return served(create_app(settings, fetcher))


def media_folder(root: Path) -> Path:
    """A media root with a video and a picture."""
    (root / "clips").mkdir(parents=True)
    make_video(root / "clips" / "clip.mp4", width=96, height=64, frames=20, fps=10, seed=3)
    (root / "clips" / "picture.png").write_bytes(make_image(width=96, height=64, seed=5))
    return root


def real_server(checkpoint: Path, media_root: Path) -> Server:
    """Serves a random checkpoint, which is made in the folder `checkpoint`."""
    make_checkpoint(checkpoint, seed=1, shape=SHAPES["small"])
    settings = {
        "video_preprocess.media_root": str(media_root),
        "decoder.kv_cache_tokens": "16384",
        "decoder.context_length": "8192",
        "video_preprocess.context_length": "8192",
        "decoder.threads": "1",
        "vision_encoder.threads": "1",
    }
    return Server(checkpoint, settings)


def api_settings(triton: Server, media_root: Path) -> Settings:
    """Small limits, and one key each for two owners."""
    return Settings(
        media_root=media_root,
        url=triton.grpc_url,
        models=("test-model", "another-name"),
        api_keys=KEYS,
        cors_origins=("https://page.example",),
        upload_quota_bytes=8 * 2**20,
        max_body_bytes=4 * 2**20,
        requests_per_minute=1_000_000,
    )


@contextlib.contextmanager
def asking(api: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A connection that has sent a request; it is closed without a word at the end."""
    where = urlsplit(api)
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer key-of-ann\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((str(where.hostname), int(where.port or 0))) as connection:
        connection.sendall(head.encode() + content)
        yield connection


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
