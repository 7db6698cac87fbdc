"""The place of each patch, for the vision tower: neighbours in its learned position table, and rotary angles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from preprocess.settings import Patching, VisionTower


@dataclass(frozen=True, eq=False)
class VisionPositions:
    indices: npt.NDArray[np.int32]
    """[patches, 4]: rows of the learned table, row by row of its square."""
    weights: npt.NDArray[np.float32]
    """[patches, 4]: bilinear weights of those rows."""
    rotary_cos: npt.NDArray[np.float32]
    """[patches, head_dim]"""
    rotary_sin: npt.NDArray[np.float32]
    """[patches, head_dim]"""


@lru_cache(maxsize=64)
def vision_positions(rows: int, columns: int, vision: VisionTower, patching: Patching) -> VisionPositions:
    """For one picture of `rows` x `columns` patches in the order of `patches.temporal_patch`; bitwise transformers'.

    From `Qwen3VLVisionRotaryEmbedding` and `get_vision_interpolation_indices_and_weights` (bilinear, aligned corners).
    The arrays are cached and shared: not to be written to.
    """
    row, column = _merge_group_order(rows, columns, patching.merge)
    row_taps, row_weights = _table_neighbours(row, rows, vision.table_side)
    column_taps, column_weights = _table_neighbours(column, columns, vision.table_side)
    indices = (row_taps[:, :, None] * vision.table_side + column_taps[:, None, :]).reshape(-1, 4)
    weights = (row_weights[:, :, None] * column_weights[:, None, :]).reshape(-1, 4)

    # Half of the frequencies turn with the row, half with the column; the two halves of a head turn alike.
    axis = vision.head_dim // 2
    frequencies = 1.0 / (vision.rope_theta ** (torch.arange(0, axis, 2, dtype=torch.float) / axis))
    angles = torch.stack([row, column], dim=1)[..., None].float() * frequencies
    angles = angles.flatten(1).repeat(1, 2)
    return VisionPositions(
        indices=indices.to(torch.int32).numpy(),
        weights=weights.numpy(),
        rotary_cos=angles.cos().numpy(),
        rotary_sin=angles.sin().numpy(),
    )


def no_positions(vision: VisionTower, patches: int) -> VisionPositions:
    """Positions for a chunk without pictures."""
    return VisionPositions(
        indices=np.zeros((patches, 4), np.int32),
        weights=np.zeros((patches, 4), np.float32),
        rotary_cos=np.zeros((patches, vision.head_dim), np.float32),
        rotary_sin=np.zeros((patches, vision.head_dim), np.float32),
    )


def _merge_group_order(rows: int, columns: int, merge: int) -> tuple[torch.Tensor, torch.Tensor]:
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    groups = (rows // merge, merge, columns // merge, merge)
    return row.reshape(groups).transpose(1, 2).flatten(), column.reshape(groups).transpose(1, 2).flatten()


def _table_neighbours(place: torch.Tensor, places: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two table positions around each place on an axis of `places`, and their weights: both [patches, 2]."""
    scaled = place.float() * (side - 1) / max(places - 1, 1)
    below = scaled.floor()
    offsets = torch.arange(2)
    taps = (below.long()[:, None] + offsets).clamp(0, side - 1)
    weights = (1 - (scaled[:, None] - below[:, None] - offsets).abs()).clamp(min=0)
    return taps, weights
