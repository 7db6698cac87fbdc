"""Chunks of a real video, as stage 1 sends them, for every optimisation profile of a TensorRT plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import isqrt
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from build.assemble.checkpoint_config import MERGED_PATCHES, PATCH_VALUES
from build.assemble.export_vision import INPUTS
from build.gpu.planner.vision_profiles import Band
from preprocess.chunks.patches import temporal_patch
from preprocess.chunks.vision_positions import no_positions, vision_positions
from preprocess.plan.resize import Size, resize
from preprocess.settings import load_settings


def real_chunks(stage: Path, video: Path, bands: Sequence[Band]) -> Iterator[dict[str, NDArray[Any]]]:
    """The chunk without pictures, then one of `video`'s frames per band, at the size that the band is best at.

    stage: an assembled `video_preprocess/1`, with the checkpoint's files.
    """
    settings = load_settings(stage / "checkpoint")
    nothing = no_positions(settings.vision, MERGED_PATCHES)
    yield _chunk(np.zeros((0, MERGED_PATCHES, PATCH_VALUES), np.uint8), nothing)
    for band in bands:
        rows, columns = _grid(band)
        side = settings.patching.patch_pixels
        size = Size(height=rows * side, width=columns * side)
        pictures = [resize(frame, size) for frame in _frames(video, 2 * band.opt_frames)]
        pairs = zip(pictures[::2], pictures[1::2], strict=True)
        patches = np.stack([temporal_patch(pair, settings.patching) for pair in pairs])
        yield _chunk(patches, vision_positions(rows, columns, settings.vision, settings.patching))


def _chunk(patches: NDArray[np.uint8], positions: Any) -> dict[str, NDArray[Any]]:
    values = (patches, positions.indices, positions.weights, positions.rotary_cos, positions.rotary_sin)
    return dict(zip(INPUTS, values, strict=True))


def _grid(band: Band) -> tuple[int, int]:
    """Even rows and columns, as many patches as the band's largest frame or a few less."""
    rows = max(2, isqrt(band.opt_patches) // 2 * 2)
    return rows, band.opt_patches // rows // 2 * 2


def _frames(video: Path, count: int) -> list[NDArray[np.uint8]]:
    """The first `count` frames, the last one repeated where there are fewer."""
    with av.open(str(video)) as container:
        decoded = islice(container.decode(video=0), count)
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in decoded]
    return frames + [frames[-1]] * (count - len(frames))
