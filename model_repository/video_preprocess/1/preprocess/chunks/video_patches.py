"""The temporal patches of a video: decoded, resized and cut, or out of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from preprocess.chunks.decode import decode_frames
from preprocess.chunks.patches import temporal_patch
from preprocess.plan.selection import Selection
from preprocess.settings import Patching
from preprocess.workers.reader import Reader


def temporal_patches(selection: Selection, patching: Patching, reader: Reader) -> Iterator[npt.NDArray[np.uint8]]:
    """A video's temporal patches as selected, one uint8 [patches, 1536] each; those that are decoded are cached."""
    assert selection.indices is not None
    decoded = _decoded(selection, patching, reader)
    if reader.cache is None:
        return decoded
    key = reader.key("patches", selection.attachment, selection.indices.tobytes(), selection.size, patching)
    rows = selection.medium.rows * selection.medium.columns * patching.merge**2
    values = 3 * patching.frames * patching.patch_pixels**2
    return reader.cache.patches(key, (selection.temporal_patches, rows, values), decoded)


def _decoded(selection: Selection, patching: Patching, reader: Reader) -> Iterator[npt.NDArray[np.uint8]]:
    assert selection.video is not None
    assert selection.indices is not None
    frames = decode_frames(reader, selection.video, selection.indices, selection.size)
    while group := list(islice(frames, patching.frames)):
        yield temporal_patch(group + group[-1:] * (patching.frames - len(group)), patching)
