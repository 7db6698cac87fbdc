"""Checkpoints, and engines that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from tests.support.harness import Harness, make_settings


@pytest.fixture(scope="session", params=["small", "untied", "deep", "shallow"])
def any_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each shape."""
    folder = tmp_path_factory.mktemp(request.param)
    make_checkpoint(folder, seed=3, shape=SHAPES[request.param])
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, seed=1)
    return folder


@pytest.fixture
def harness(checkpoint: Path) -> Iterator[Callable[..., Harness]]:
    """Starts engines that end with the test; keyword arguments change the settings."""
    started: list[Harness] = []

    def start(folder: Path = checkpoint, **changes: object) -> Harness:
        started.append(Harness(make_settings(folder, **changes)))
        return started[-1]

    yield start
    for one in started:
        one.engine.close()
