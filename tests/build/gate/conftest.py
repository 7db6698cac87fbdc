"""A real server on a small random checkpoint, with a gate before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from tests.build.gate.doors import Doors, opened
from tests.support import wire
from tests.support.media import make_video
from tests.support.serving import Server


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    make_video(path, width=128, height=96, frames=30, fps=10, seed=3)
    return path.read_bytes()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(checkpoint, seed=1, shape=SHAPES["small"])
    settings = {
        "decoder.kv_cache_tokens": "16384",
        "decoder.context_length": "8192",
        "video_preprocess.context_length": "8192",
        "decoder.threads": "1",
        "vision_encoder.threads": "1",
    }
    with Server(checkpoint, settings) as server:
        yield server


@pytest.fixture(scope="session")
def gate(triton: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with opened(triton, tmp_path_factory.mktemp("gate") / "gate.log") as doors:
        yield doors


@pytest.fixture
def unharmed(triton: Server, gate: Doors) -> Iterator[None]:
    """After the test the same processes run, answer through the gate, and have every KV block back."""
    before, pid = triton.pids(), gate.pid
    yield
    assert wire.ask(gate.grpc, wire.question("Still there?", sampling={"max_tokens": 2})).usage
    wire.wait_idle(gate.grpc)
    assert triton.pids() == before, triton.log()[-2000:]
    assert (gate.pid, gate.process.exit_status()) == (pid, None)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "gate.log"
