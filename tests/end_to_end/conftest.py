"""One real server on a small random checkpoint, for the tests that only ask it."""

from pathlib import Path

import pytest

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from tests.support import wire
from tests.support.media import make_image, make_video
from tests.support.serving import Server


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, seed=1, shape=SHAPES["small"])
    return folder


@pytest.fixture(scope="session")
def media_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("media")
    (root / "clips").mkdir()
    make_video(root / "clips" / "clip.mp4", width=128, height=96, frames=30, fps=10, seed=3)
    return root


@pytest.fixture(scope="session")
def clip(media_root) -> bytes:
    return (media_root / "clips" / "clip.mp4").read_bytes()


@pytest.fixture(scope="session")
def picture() -> bytes:
    return make_image(width=120, height=80, seed=5)


@pytest.fixture(scope="session")
def server(checkpoint, media_root):
    """Shared by all tests that leave it as it was. The KV cache is small, so that a leak of blocks shows."""
    settings = {
        "video_preprocess.media_root": str(media_root),
        "decoder.kv_cache_tokens": "16384",
        "decoder.context_length": "8192",
        "video_preprocess.context_length": "8192",
        "decoder.threads": "1",
        "vision_encoder.threads": "1",
    }
    with Server(checkpoint, settings) as running:
        yield running


@pytest.fixture
def unharmed(server):
    """After the test the server answers as before, and has every KV block back."""
    yield
    assert wire.ask(server.grpc_url, wire.question("Still there?", sampling={"max_tokens": 2})).usage
    wire.wait_idle(server.grpc_url)
