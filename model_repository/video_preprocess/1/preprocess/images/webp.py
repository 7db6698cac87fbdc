"""The size of a WebP image out of its first bytes: what decodes it takes the memory as soon as it opens it."""

from __future__ import annotations

from preprocess.media.size import Size

HEAD_BYTES = 30


def webp_size(head: bytes) -> Size | None:
    """None for what is no WebP image, or says no size where it should."""
    if len(head) < HEAD_BYTES or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None

    def number(start: int, count: int) -> int:
        return int.from_bytes(head[start : start + count], "little")

    kind = head[12:16]
    if kind == b"VP8X":
        return Size(number(27, 3) + 1, number(24, 3) + 1)
    if kind == b"VP8L":
        bits = number(21, 4)
        return Size((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    return Size(number(28, 2) & 0x3FFF, number(26, 2) & 0x3FFF)
