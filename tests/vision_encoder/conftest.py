"""Exported towers of several shapes, and chunks as stage 1 would send them, by transformers' own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from build.assemble.export_vision import export_vision
from encoder.chunk import Chunk
from tests.support import reference


class Tower:
    """A random checkpoint of a shape, its exported tower, and the reference to compare with."""

    def __init__(self, folder: Path, shape: str) -> None:
        self.checkpoint, self.onnx = folder / "checkpoint", folder / "vision.onnx"
        make_checkpoint(self.checkpoint, seed=11, shape=SHAPES[shape])
        export_vision(self.checkpoint, self.onnx)
        self.reference = reference.load_model(self.checkpoint).model.visual

    @torch.inference_mode()
    def chunk(self, frames: int, rows: int, columns: int, *, seed: int = 0) -> Chunk:
        """Random pixels of `frames` temporal patches of `rows` x `columns` patches."""
        grid = torch.tensor([[1, rows, columns]])
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid, self.reference.num_grid_per_side, align_corners=True, spatial_merge_size=2
        )
        cos, sin = self.reference.rotary_pos_emb(weights, get_vision_position_ids(grid, 2))
        pixels = np.random.default_rng(seed).integers(0, 256, (frames, rows * columns, 1536), dtype=np.uint8)
        return Chunk(pixels, indices.to(torch.int32).numpy(), weights.numpy(), cos.numpy(), sin.numpy())

    @torch.inference_mode()
    def expected(self, chunk: Chunk, rows: int, columns: int) -> np.ndarray:
        """The reference's packed rows for all frames of `chunk` at once, as for one video."""
        frames, patches, values = chunk.patches.shape
        pixels = (torch.from_numpy(chunk.patches).float() - 127.5) / 127.5
        vision = self.reference(pixels.reshape(-1, values), grid_thw=torch.tensor([[frames, rows, columns]]))
        packed = torch.cat([vision.pooler_output, *vision.deepstack_features], dim=-1)
        return packed.reshape(frames, patches // 4, -1).numpy()


@pytest.fixture(scope="session")
def small_tower(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    return Tower(tmp_path_factory.mktemp("small"), "small")


@pytest.fixture(scope="session", params=["untied", "deep", "bfloat16"])
def other_tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tower:
    return Tower(tmp_path_factory.mktemp(request.param), request.param)
