"""The length that a Matroska or WebM file announces: FFmpeg plays one that was cut off to its cut, without a word."""

from __future__ import annotations

HEAD_BYTES = 64
_EBML_HEADER = bytes.fromhex("1a45dfa3")
_SEGMENT = bytes.fromhex("18538067")


def announced_bytes(head: bytes) -> int | None:
    """The length of the whole file by its first HEAD_BYTES bytes; None if they do not say, as in a live recording.

    RFC 8794 (EBML): a file is its header element and one segment; each is an ID, a length and so many bytes.
    """
    if not head.startswith(_EBML_HEADER):
        return None
    length, start = _read_length(head, len(_EBML_HEADER))
    segment = start + (length or 0)
    if head[segment : segment + len(_SEGMENT)] != _SEGMENT:
        return None
    length, start = _read_length(head, segment + len(_SEGMENT))
    return None if length is None else start + length


def _read_length(data: bytes, at: int) -> tuple[int | None, int]:
    """A variable-size integer and where it ends: a byte more than the first has leading zeros; all ones: unknown."""
    size = 9 - data[at].bit_length() if at < len(data) else 9
    content = data[at : at + size]
    if len(content) < size:
        return None, at
    mask = (1 << 7 * size) - 1
    value = int.from_bytes(content, "big") & mask
    return (None if value == mask else value), at + size
