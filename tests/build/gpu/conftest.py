"""A small vision tower, exported as stage 2 serves it, and chunks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.assemble.checkpoint_config import CheckpointConfig
from build.assemble.checkpoint_factory import make_checkpoint
from build.assemble.export_vision import INPUTS
from build.assemble.repository import assemble
from build.gpu.configurations import settings
from build.gpu.planner.models import find_model
from build.gpu.planner.planning import Fit, find_fit
from build.gpu.planner.profiles import find_profile


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def gpu_fit(checkpoint: Path) -> Fit:
    fit = find_fit(find_profile("rtx4090d"), find_model(str(checkpoint)))
    assert isinstance(fit, Fit)
    return fit


@pytest.fixture(scope="session")
def assembled(checkpoint: Path, gpu_fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "assembled"
    assemble(checkpoint, folder, settings(gpu_fit))
    return folder


@pytest.fixture(scope="session")
def exported(assembled: Path) -> Path:
    return assembled / "vision_encoder" / "1" / "checkpoint" / "vision.onnx"


@pytest.fixture(scope="session")
def make_chunk(checkpoint: Path) -> Callable[[int, int], dict[str, np.ndarray[Any, Any]]]:
    config = CheckpointConfig.read(checkpoint).vision

    def make(frames: int, patches: int) -> dict[str, np.ndarray[Any, Any]]:
        random = np.random.default_rng(frames * 1000 + patches)
        angles = random.random((patches, config.head_dim), dtype=np.float32)
        values = (
            random.integers(0, 256, (frames, patches, 1536), dtype=np.uint8),
            random.integers(0, config.position_embeddings, (patches, 4), dtype=np.int32),
            random.random((patches, 4), dtype=np.float32),
            np.cos(angles),
            np.sin(angles),
        )
        return dict(zip(INPUTS, values, strict=True))

    return make
