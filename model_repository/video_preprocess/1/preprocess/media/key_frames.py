"""The order of decoding: from which key frame a frame is reached, how far it is from there, which come late."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def entry_points(key_frames: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each frame, in presentation order, the key frame from which decoding reaches it: the last shown up to it.

    A picture that is shown before a key frame but decoded after it (a leading picture of an open group) may refer to
    what lies before that key frame: it is reached from the key frame before. Frames before the first key frame are
    reached from frame 0.
    """
    frames = np.arange(len(key_frames))
    return np.maximum.accumulate(np.where(key_frames, frames, 0))


def decode_distances(key_frames: npt.NDArray[np.bool_], decode_ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many frames are decoded before each frame, from its entry point on; 0 for a key frame."""
    return np.maximum(decode_ranks - decode_ranks[entry_points(key_frames)], 0)


def decoded_late(decode_ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether a frame is decoded after one that is shown later: a B-frame, between two that it lies between."""
    latest_shown = np.empty_like(decode_ranks)
    in_decode_order = np.argsort(decode_ranks)
    latest_shown[in_decode_order] = np.maximum.accumulate(in_decode_order)
    return np.arange(len(decode_ranks)) < latest_shown
