"""The scans of a JPEG file, counted before it is decoded.

A progressive file refines the whole picture with every scan, of which a few bytes suffice. Encoders write ten or so,
and each takes time for every pixel.
"""

from __future__ import annotations

import mmap
import re

MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1 << 30
"""Pixels times scans, which take a second or two: of the largest image 16 scans."""
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
# The second byte of a marker: zero belongs to the pictures' data, 0xFF fills, and these have no segment behind them:
# TEM, the marks of restarts, and the start of the image.
_SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_LENGTH_BYTES = 2


def count_scans(file: int) -> int:
    """The scans of the image at the start of `file`, a descriptor; no more than MAX_SCANS + 1 are counted.

    Segments are passed over: what a camera writes into them or behind the image is no scan, whatever its bytes.
    """
    scans = place = 0
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        while scans <= MAX_SCANS:
            found = _SEGMENT.search(content, place)
            if found is None or found[1][0] == _END_OF_IMAGE:
                break
            scans += found[1][0] == _START_OF_SCAN
            length = int.from_bytes(content[found.end() : found.end() + _LENGTH_BYTES])
            place = found.end() + max(length, _LENGTH_BYTES)
    return scans
