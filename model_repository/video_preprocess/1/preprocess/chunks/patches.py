"""Cuts pictures into the vision tower's patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from preprocess.settings import Patching


def temporal_patch(frames: Sequence[torch.Tensor], patching: Patching) -> npt.NDArray[np.uint8]:
    """The frames of one temporal patch, uint8 [3, height, width] each, to uint8 [patches, 3 * frames * side * side].

    A row is (channel, time, row, column); the rows of one merge group are neighbours, groups go row by row: the layout
    of `Qwen3VLVideoProcessor.patchify`.
    """
    stacked = torch.stack(list(frames))
    count, channels, height, width = stacked.shape
    side, merge = patching.patch_pixels, patching.merge
    rows, columns = height // side // merge, width // side // merge
    split = stacked.reshape(count, channels, rows, merge, side, columns, merge, side)
    ordered = split.permute(2, 5, 3, 6, 1, 0, 4, 7)
    return ordered.reshape(rows * columns * merge * merge, channels * count * side * side).numpy()
