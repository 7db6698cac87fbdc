"""The optimisation profiles of the vision plan: which batches of frames a TensorRT engine must accept."""

from dataclasses import dataclass

from build.assemble.checkpoint_config import MERGED_PATCHES

# Bounds of a band lie this far apart: a box of frames x patches then holds at most four chunks.
BAND_RATIO = 4
SMALLEST_FRAME_PATCHES = MERGED_PATCHES


@dataclass(frozen=True)
class Band:
    """Frames of similar size: `min_patches` to `max_patches` patches each, at most `max_frames` in a chunk."""

    min_patches: int
    opt_patches: int
    max_patches: int
    min_frames: int
    opt_frames: int
    max_frames: int


def bands(*, chunk_tokens: int, max_frame_tokens: int) -> tuple[Band, ...]:
    """Bands, largest frames first, that together cover every chunk of at most `chunk_tokens` visual tokens.

    An optimisation profile is a box of frames x patches, and its memory is that of the box's corner. Chunks lie under a
    hyperbola (frames x patches is bounded): boxes of frames of similar size follow it, where a single box would have
    to hold the most frames of the largest size. A frame is never split, so one larger than a chunk is a batch of one.
    Chunks without pictures have 0 frames of 4 patches.
    """
    chunk_patches = chunk_tokens * MERGED_PATCHES
    result = []
    upper = max_frame_tokens * MERGED_PATCHES
    # The scores of attention grow with the square of a frame's size: the band of the largest ones is half as wide.
    lower = upper // 2
    while True:
        lower = max(lower // MERGED_PATCHES * MERGED_PATCHES, SMALLEST_FRAME_PATCHES)
        smallest = lower == SMALLEST_FRAME_PATCHES
        max_frames = max(1, chunk_patches // lower)
        result.append(
            Band(
                min_patches=lower,
                opt_patches=upper,
                max_patches=upper,
                min_frames=0 if smallest else 1,
                opt_frames=max(1, min(max_frames, chunk_patches // upper)),
                max_frames=max_frames,
            )
        )
        if smallest:
            return tuple(result)
        upper, lower = lower, lower // BAND_RATIO
