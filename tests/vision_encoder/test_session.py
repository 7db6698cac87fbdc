"""The exported tower in ONNX Runtime computes what transformers' Qwen3VLVisionModel does, and refuses the rest."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder.chunk import Chunk, InvalidChunkError
from encoder.session import VisionEncoder

GRIDS = [(1, 2, 2), (3, 4, 6), (2, 10, 4), (1, 18, 34)]


@pytest.mark.parametrize("grid", GRIDS)
def test_rows_equal_the_reference(small_tower: Any, grid: tuple[int, int, int]) -> None:
    chunk = small_tower.chunk(*grid)
    features = VisionEncoder(small_tower.onnx, threads=1).encode(chunk)
    np.testing.assert_allclose(features, small_tower.expected(chunk, *grid[1:]), rtol=0, atol=1e-5)


def test_rows_of_other_shapes_equal_the_reference(other_tower: Any) -> None:
    encoder = VisionEncoder(other_tower.onnx, threads=1)
    for seed, grid in enumerate(GRIDS):
        chunk = other_tower.chunk(*grid, seed=seed)
        np.testing.assert_allclose(encoder.encode(chunk), other_tower.expected(chunk, *grid[1:]), rtol=0, atol=1e-5)


def test_frames_do_not_see_each_other(small_tower: Any) -> None:
    encoder = VisionEncoder(small_tower.onnx, threads=1)
    chunk = small_tower.chunk(3, 4, 4)
    alone = encoder.encode(replace(chunk, patches=chunk.patches[1:2]))
    np.testing.assert_allclose(encoder.encode(chunk)[1:2], alone, rtol=0, atol=1e-6)


def test_no_frames_give_no_rows(small_tower: Any) -> None:
    chunk = small_tower.chunk(1, 2, 2)
    encoder = VisionEncoder(small_tower.onnx, threads=1)
    features = encoder.encode(replace(chunk, patches=chunk.patches[:0]))
    assert features.shape == (0, 1, encoder.feature_width)
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"patches": np.zeros((4, 1536), np.uint8)},
            "patches has shape [4, 1536]; [frames, patches, 1536] is",
        ),
        ({"patches": np.zeros((1, 4, 768), np.uint8)}, "patches has shape [1, 4, 768]"),
        ({"patches": np.zeros((1, 6, 1536), np.uint8)}, "patches has 6 patches a frame; a multiple of 4 is accepted"),
        ({"patches": np.zeros((1, 0, 1536), np.uint8)}, "patches has 0 patches a frame"),
        ({"patches": np.zeros((1, 4, 1536), np.float32)}, "patches is float32 [1, 4, 1536]; uint8"),
        (
            {"position_indices": np.zeros((8, 4), np.int32)},
            "position_indices is int32 [8, 4]; int32 [4, 4] is",
        ),
        ({"position_weights": np.zeros((4, 4), np.float64)}, "position_weights is float64 [4, 4]; float32 [4, 4]"),
        ({"rotary_cos": np.zeros((4, 10), np.float32)}, "rotary_cos is float32 [4, 10]; float32 [4, 12] is accepted"),
        ({"rotary_sin": np.zeros((4,), np.float32)}, "rotary_sin is float32 [4]"),
        ({"position_indices": np.full((4, 4), 256, np.int32)}, "position_indices has 256; 0 to 255 are accepted"),
        ({"position_indices": np.full((4, 4), -1, np.int32)}, "position_indices has -1; 0 to 255 are accepted"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(small_tower: Any, changes: dict[str, np.ndarray], message: str) -> None:
    chunk: Chunk = replace(small_tower.chunk(1, 2, 2), **changes)
    with pytest.raises(InvalidChunkError, match=re.escape(message)):
        VisionEncoder(small_tower.onnx, threads=1).encode(chunk)


def test_a_tower_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'vision.onnx'}: there is no exported")):
        VisionEncoder(tmp_path / "vision.onnx")
