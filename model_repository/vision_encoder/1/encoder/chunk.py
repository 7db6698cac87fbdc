"""The tensors of one encoding, and the check that they fit the tower."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PATCH_VALUES = 1536
MERGED_PATCHES = 4


class InvalidChunkError(ValueError):
    """A tensor that the tower cannot take; the message names it, its value and what is accepted."""


@dataclass(frozen=True)
class Chunk:
    """Temporal patches of one medium, and what the tower needs to know of their grid; merge groups are neighbours."""

    patches: NDArray[np.uint8]
    """`[frames, patches, 1536]`: (channel, time, row, column), pixels as bytes."""
    position_indices: NDArray[np.int32]
    """`[patches, 4]`: the four neighbours of each patch in the learned position table."""
    position_weights: NDArray[np.float32]
    """`[patches, 4]`: their bilinear weights."""
    rotary_cos: NDArray[np.float32]
    """`[patches, head_dim]`."""
    rotary_sin: NDArray[np.float32]
    """`[patches, head_dim]`."""

    def check(self, *, head_dim: int, position_embeddings: int) -> None:
        """Raise InvalidChunkError unless types and shapes fit each other and a tower with those sizes."""
        shape = self.patches.shape
        if len(shape) != 3 or shape[2] != PATCH_VALUES:
            raise InvalidChunkError(f"patches has shape {list(shape)}; [frames, patches, {PATCH_VALUES}] is accepted")
        patches = shape[1]
        if patches == 0 or patches % MERGED_PATCHES:
            raise InvalidChunkError(
                f"patches has {patches} patches a frame; a multiple of {MERGED_PATCHES} is accepted"
            )
        expected = {
            "patches": (np.uint8, shape),
            "position_indices": (np.int32, (patches, 4)),
            "position_weights": (np.float32, (patches, 4)),
            "rotary_cos": (np.float32, (patches, head_dim)),
            "rotary_sin": (np.float32, (patches, head_dim)),
        }
        for name, (dtype, dimensions) in expected.items():
            array: NDArray[np.generic] = getattr(self, name)
            if array.dtype != dtype or array.shape != dimensions:
                raise InvalidChunkError(
                    f"{name} is {array.dtype} {list(array.shape)};"
                    f" {np.dtype(dtype)} {list(dimensions)} is accepted for {patches} patches a frame"
                )
        outside = self.position_indices[(self.position_indices < 0) | (self.position_indices >= position_embeddings)]
        if outside.size:
            raise InvalidChunkError(
                f"position_indices has {outside[0]}; 0 to {position_embeddings - 1} are accepted: the learned positions"
            )
