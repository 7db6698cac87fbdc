"""The change signal: where a video changes, read off what it cost the encoder, or off thumbnails.

Both come down to one thing: a positive amount for each picture, large where it differs from the one before. How large
is large depends on the encoder's rate, on the kind of picture and on how restless the scene is, so an amount counts by
how far it stands out among those around it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.media.key_frames import decoded_late

Score = npt.NDArray[np.float32]
"""`[frames]`: how far each frame's amount of change stands out, in spreads; 0 is usual, `CUT` a new scene."""

CUT = np.float32(np.inf)
"""The score of a new scene: where all of the picture changes, or the encoder put a key frame before it was due."""

_WINDOW = 31
"""Pictures among which one has to stand out: a second or two."""
_LEAST_SPREAD = 0.5
"""Added to the spread, as a share of the median, so that the smallest change of a dead still scene is none."""
_HEADER_BYTES = 100
"""Added to sizes: an empty picture's packet has tens of bytes, and twice as many mean nothing."""
_BLOCK = 1 << 16


def packet_score(
    packet_bytes: npt.NDArray[np.int64], key_frames: npt.NDArray[np.bool_], decode_ranks: npt.NDArray[np.int64]
) -> Score:
    """The change signal of the compressed stream. Frames are as presented; `decode_ranks` says when each is decoded.

    Key frames are compared with nothing: they cost the same whatever came before. One that breaks the encoder's longest
    interval is a cut. Other frames are compared with their like: those that are decoded in the order in which they are
    shown, and those that come late, between two that they refer to (B-frames), which cost much less.
    """
    score = np.zeros(len(packet_bytes), np.float32)
    if key_frames.all():
        # Every picture by itself: its size says how much is in it, and jumps where that changes.
        return standing_out(np.abs(np.diff(packet_bytes, prepend=packet_bytes[:1])) + 0.02 * packet_bytes)
    late = decoded_late(decode_ranks)
    for kind in (~key_frames & ~late, ~key_frames & late):
        score[kind] = standing_out(packet_bytes[kind] + _HEADER_BYTES)
    keys = np.flatnonzero(key_frames)
    intervals = np.diff(decode_ranks[keys])
    if len(intervals):
        score[keys[1:][intervals < 0.97 * intervals.max()]] = CUT
    return score


def standing_out(amounts: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> Score:
    """How far each of `[n]` positive amounts lies above the median of its neighbours, in spreads around it."""
    if len(amounts) < 2:
        return np.zeros(len(amounts), np.float32)
    values = amounts.astype(np.float32)
    usual = _running_median(values)
    above = values - usual
    return above / (_LEAST_SPREAD * usual + _running_median(np.abs(above)))


def _running_median(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The median of the `_WINDOW` values around each; at the ends, of the outermost `_WINDOW` mirrored."""
    half = min(_WINDOW // 2, len(values) - 1)
    padded = np.pad(values, half, mode="reflect")
    # In blocks: all windows at once would be as large as hours of frames times the window.
    return np.concatenate(
        [
            np.median(
                np.lib.stride_tricks.sliding_window_view(padded[start : start + _BLOCK + 2 * half], 2 * half + 1),
                axis=1,
            )
            for start in range(0, len(values), _BLOCK)
        ]
    ).astype(np.float32)
