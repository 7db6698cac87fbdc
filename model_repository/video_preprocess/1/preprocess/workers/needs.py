"""How much memory a task on a file takes: what its pictures account for, known from its header before any is decoded.

A task begins with `FIRST_BYTES`. One that needs more says so, and is done again once there is so much. Measured: the
peaks of a worker and of the stage together, what they share counted once.
"""

from __future__ import annotations

import math

from preprocess.media.size import Size

FIRST_BYTES = 256 << 20
"""Enough for a video in Full HD, and for an image of 16 million pixels."""
MORE = 4
"""A task that runs out of memory without having known gets so many times as much."""
_OWN_BYTES = 32 << 20
"""For anything: what libraries keep beside pictures."""
# Of an image, for each pixel: decoded (4), upright RGB (3), shared with the stage (3), resized (1), and a little. While
# a progressive JPEG is read, its coefficients take as much as what comes after. A WebP has two pictures more of 4.
_IMAGE_BYTES = 12
_WEBP_BYTES = 20
# Of a video: frames that the codec's threads work on and refer to, or that wait to be shown, and RGB of some of them.
_FRAMES = 32
_RGB_BYTES = 18


class NeedsMemoryError(Exception):
    """Ends a task that needs more memory than it was given."""

    def __init__(self, needed_bytes: int) -> None:
        super().__init__(needed_bytes)
        self.needed_bytes = needed_bytes


def image_bytes(size: Size, format_: str | None) -> int:
    """For decoding an image of a format, as Pillow names it, and handing it to the stage."""
    return _OWN_BYTES + size.height * size.width * (_WEBP_BYTES if format_ == "WEBP" else _IMAGE_BYTES)


def video_bytes(size: Size, bits_per_pixel: int) -> int:
    """For decoding frames of `bits_per_pixel`, padding included."""
    return _OWN_BYTES + size.height * size.width * (math.ceil(_FRAMES * bits_per_pixel / 8) + _RGB_BYTES)
