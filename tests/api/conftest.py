"""One real server on a small random checkpoint, and the API before it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from checkpoint_factory import SHAPES, make_checkpoint
from media import make_image, make_video
from qwen3_vl_client.api import Settings, create_app
from qwen3_vl_client.api.fetch import Fetcher
from serving import Server

KEYS = {"ann": "key-of-ann", "bob": "key-of-bob"}


@contextlib.contextmanager
def running(settings: Settings, fetcher: Fetcher | None = None) -> Iterator[str]:
    """The API on a free port of 127.0.0.1; gives its `http://127.0.0.1:PORT`."""
    config = uvicorn.Config(create_app(settings, fetcher), port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the API did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    (root / "clips").mkdir()
    make_video(root / "clips" / "clip.mp4", width=96, height=64, frames=20, fps=10, seed=3)
    (root / "clips" / "picture.png").write_bytes(make_image(width=96, height=64, seed=5))
    return root


@pytest.fixture(scope="session")
def clip(media_root: Path) -> bytes:
    return (media_root / "clips" / "clip.mp4").read_bytes()


@pytest.fixture(scope="session")
def picture(media_root: Path) -> bytes:
    return (media_root / "clips" / "picture.png").read_bytes()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory, media_root: Path) -> Iterator[Server]:
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(checkpoint, seed=1, shape=SHAPES["small"])
    settings = {
        "video_preprocess.media_root": str(media_root),
        "decoder.kv_cache_tokens": "16384",
        "decoder.context_length": "8192",
        "video_preprocess.context_length": "8192",
        "decoder.threads": "1",
        "vision_encoder.threads": "1",
    }
    with Server(checkpoint, settings) as server:
        yield server


@pytest.fixture(scope="session")
def settings(triton: Server, media_root: Path) -> Settings:
    return Settings(
        media_root=media_root,
        url=triton.grpc_url,
        models=("test-model", "another-name"),
        api_keys=KEYS,
        cors_origins=("https://page.example",),
        upload_quota_bytes=8 * 2**20,
        max_body_bytes=4 * 2**20,
        requests_per_minute=100_000,
    )


@pytest.fixture(scope="session")
def api(settings: Settings) -> Iterator[str]:
    """Its address; everybody in `KEYS` may ask."""
    with running(settings) as url:
        yield url
