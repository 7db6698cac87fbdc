"""A real server on a small random checkpoint, with the API before it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from qwen3_vl_client.api import Settings, create_app
from qwen3_vl_client.api.fetch import Fetcher
from tests.front.stack import served
from tests.support.media import make_image, make_video
from tests.support.serving import Server

KEYS = {"ann": "key-of-ann", "bob": "key-of-bob"}


@contextlib.contextmanager
def running(settings: Settings, fetcher: Fetcher | None = None) -> Iterator[str]:
    """The API on a free port of 127.0.0.1; gives its `http://127.0.0.1:PORT`."""
    with served(create_app(settings, fetcher)) as url:
        yield url


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


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
