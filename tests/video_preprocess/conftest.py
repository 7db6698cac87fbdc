"""Stage 1 without Triton: a random checkpoint's files, and a recipient that plays stage 3 on the FIFO."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import media
import pytest
from checkpoint_factory import make_checkpoint
from preprocess.chunks import Chunk
from preprocess.media import Library
from preprocess.prompt import PromptWriter
from preprocess.service import Parameters, Service
from preprocess.settings import Settings, load_settings

WAIT_SECONDS = 30.0


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
def library(tmp_path: Path) -> Library:
    return Library(tmp_path, max_frame_pixels=1 << 26)


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., bytes]:
    """`encode("name.mp4", frames=…)`: the bytes of a video that `media.make_video` makes."""

    def make(name: str = "video.mp4", **options: Any) -> bytes:
        path = tmp_path / name
        media.make_video(path, **options)
        return path.read_bytes()

    return make


@dataclass
class Recipient:
    """Collects the responses of one request, and grants credits as stage 3 would."""

    credits_directory: Path
    credits: int = 1000
    """Written as soon as the plan is there."""
    ends: bool = True
    """Whether the session is ended when the last chunk is there."""
    received: queue.Queue[tuple[dict[str, Any], Chunk]] = field(default_factory=queue.Queue)
    chunks: list[tuple[dict[str, Any], Chunk]] = field(default_factory=list)
    heartbeats: int = 0
    error: str | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    pipe: int | None = None

    def send(self, header: str, chunk: Chunk) -> None:
        assert not self.finished.is_set(), "a response after the last"
        values = json.loads(header)
        if values["index"] is None:
            self.heartbeats += 1
            return
        if values["index"] == 0:
            self.pipe = os.open(self.credits_directory / values["session"], os.O_WRONLY | os.O_NONBLOCK)
        self.chunks.append((values, chunk))
        if values["index"] == 1:
            self.grant(self.credits)
        if values.get("last") and self.ends:
            self.end()

    def fail(self, message: str) -> None:
        self.error = message
        self.finished.set()

    def close(self) -> None:
        self.finished.set()

    def grant(self, credits: int) -> None:
        assert self.pipe is not None
        os.write(self.pipe, b"+" * credits)

    def end(self, mark: bytes = b".") -> None:
        """`.` and end of file; without the mark, the death of stage 3."""
        assert self.pipe is not None
        os.write(self.pipe, mark)
        os.close(self.pipe)
        self.pipe = None

    def wait(self) -> Recipient:
        assert self.finished.wait(WAIT_SECONDS), "the request did not end"
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None
        return self


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


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
