"""The processor time and memory that a task on a file may take: what its size and its pictures account for.

A task has `base` seconds for whatever it is, and more for every byte that is read and every pixel that is decoded on a
slow machine. So a small file never takes long, hours of large pictures may, and nothing takes more than the ceiling.

It begins with `FIRST_BYTES` of memory. One that needs more says so, and is done again once there is so much.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from preprocess.media.key_frames import entry_points
from preprocess.media.size import Size
from preprocess.media.timeline import Timeline

READ_BYTES_PER_SECOND = 1 << 20
"""Packets of a still screen have some 50 bytes, and 30 microseconds each go into reading them."""
SOUND_BYTES_PER_SECOND = 100_000
"""Half a minute of speech at 24 kbit/s, which is decoded in one second even where that is slow."""
DECODED_PIXELS_PER_SECOND = 10_000_000
"""HEVC of 10 bits in software on one slow core has three times as many."""
_LEAST_PIXELS = 100_000
"""As many as a small picture counts for: each costs something, however small."""
FIRST_BYTES = 256 << 20
"""Enough for a video in Full HD, and for an image of 16 million pixels."""
MORE = 4
"""A task that runs out of memory without having known gets so many times as much."""


class NeedsMemoryError(Exception):
    """Ends a task that needs more memory than it was given."""

    def __init__(self, needed_bytes: int) -> None:
        super().__init__(needed_bytes)
        self.needed_bytes = needed_bytes


def reading_seconds(base: int, file_bytes: int) -> int:
    """For opening a file and reading its packets, thumbnails included."""
    return base + file_bytes // READ_BYTES_PER_SECOND


def sound_seconds(base: int, file_bytes: int) -> int:
    return base + file_bytes // SOUND_BYTES_PER_SECOND


def image_seconds(base: int, file_bytes: int, pixels: int) -> int:
    return reading_seconds(base, file_bytes) + math.ceil(pixels / DECODED_PIXELS_PER_SECOND)


def frames_seconds(base: int, timeline: Timeline, indices: npt.NDArray[np.int64], size: Size) -> int:
    """For decoding the frames `indices`, and all those that have to be decoded on the way to them."""
    pixels = max(size.height * size.width, _LEAST_PIXELS)
    return base + math.ceil(decoded_frames(timeline, indices) * pixels / DECODED_PIXELS_PER_SECOND)


def decoded_frames(timeline: Timeline, indices: npt.NDArray[np.int64]) -> int:
    """How many frames are decoded for `indices`: from the key frame before each on, once for those that share one."""
    if timeline.counted:
        return int(timeline.decode_ranks.max()) + 1
    wanted = np.unique(indices)
    entries = entry_points(timeline.key_frames)[wanted]
    # From frame 0, which is none, if a segment begins at no key frame.
    starts = np.where(timeline.key_frames[entries], timeline.decode_ranks[entries], 0)
    lengths = timeline.decode_ranks[wanted] - starts + 1
    longest: dict[int, int] = {}
    for entry, length in zip(entries.tolist(), lengths.tolist(), strict=True):
        longest[entry] = max(longest.get(entry, 1), length)
    return sum(longest.values())
