"""Stage 1 without Triton, on a random checkpoint's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build.assemble.checkpoint_factory import make_checkpoint
from preprocess.plan.prompt import PromptWriter
from preprocess.service import Parameters, Service
from preprocess.settings import Settings, load_settings
from preprocess.workers.reader import Reader
from tests.support import media, readers
from tests.support.recipient import Recipient


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def settings(checkpoint: Path) -> Settings:
    return load_settings(checkpoint)


@pytest.fixture(scope="session")
def writer(checkpoint: Path, settings: Settings) -> PromptWriter:
    return PromptWriter(checkpoint, settings.token_ids)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with closing(readers.reader(tmp_path)) as made:
        yield made


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., bytes]:
    """`encode("name.mp4", frames=…)`: the bytes of a video that `media.make_video` makes."""

    def make(name: str = "video.mp4", **options: Any) -> bytes:
        path = tmp_path / name
        media.make_video(path, **options)
        return path.read_bytes()

    return make


@pytest.fixture
def parameters(checkpoint: Path, tmp_path: Path) -> Parameters:
    return Parameters(
        checkpoint=checkpoint,
        media_root=tmp_path,
        credits_directory=tmp_path / "credits",
        context_length=None,
        chunk_tokens=64,
        heartbeat_seconds=0.05,
        max_requests=4,
        max_attachments=16,
        max_frame_pixels=1 << 26,
        cache_directory=tmp_path / "cache",
    )


@pytest.fixture
def start_service(parameters: Parameters) -> Iterator[Callable[..., Service]]:
    """`start_service(max_requests=…)`: a running service with changed parameters, shut down at the end of the test."""
    services: list[Service] = []

    def start(**changes: Any) -> Service:
        services.append(Service(replace(parameters, **changes)))
        return services[-1]

    yield start
    for service in services:
        service.shut_down()


@pytest.fixture
def recipient(parameters: Parameters) -> Callable[..., Recipient]:
    return lambda **options: Recipient(parameters.credits_directory, **options)
