"""The edits of an MP4 or MOV file, counted before FFmpeg opens it.

FFmpeg makes an index of the frames of every edit, one behind the other. An editor writes a few edits, or some hundreds;
a megabyte of them would make an index of gigabytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

MAX_EDITS = 4096
"""The bound on the edits of a track."""
MAX_INDEX_BYTES = 1 << 29
"""The bound on `moov`, the box with the tables of all tracks: a day of 60 frames per second has a quarter of it."""
_MAX_BOXES = 10_000
"""Before `moov`. What hides it behind more finds the bound on processor time."""
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 16
_LIST_HEAD_BYTES = 8
_LEAST_EDIT_BYTES = 12


def excess(file: int) -> str | None:
    """The reason why the file `file`, a descriptor, may not be opened; None if it may."""
    for place, end in _movies(file):
        if end - place > MAX_INDEX_BYTES:
            return f"an index of {end - place} bytes; at most {MAX_INDEX_BYTES} are accepted"
        edits = _most_edits(file, place, end)
        if edits > MAX_EDITS:
            return f"an edit list of {edits} entries; at most {MAX_EDITS} are accepted"
    return None


def _movies(file: int) -> Iterator[tuple[int, int]]:
    """Where the content of the first `moov` begins and ends, if there is one. FFmpeg reads no second."""
    place, size = 0, os.fstat(file).st_size
    for _ in range(_MAX_BOXES):
        head = os.pread(file, _HEAD_BYTES, place)
        if len(head) < _HEAD_BYTES:
            return
        kind, content, end = _box(head, place, size)
        if kind == b"moov":
            yield content, min(end, size)
            return
        if not place < end < size:
            return
        place = end


def _most_edits(file: int, place: int, end: int) -> int:
    """The entries of the longest list among the boxes at `place`. Looked for by name, wherever it may lie."""
    most = 0
    while place < end:
        piece = os.pread(file, _PIECE_BYTES + _HEAD_BYTES, place)
        found = piece.find(b"elst", 4)
        while 0 <= found < _PIECE_BYTES + 4:
            start = found - 4
            head = piece[start : start + _HEAD_BYTES].ljust(_HEAD_BYTES, b"\0")
            _, content, last = _box(head, place + start, end)
            # FFmpeg counts by the length of the box, whatever the box says. What reaches beyond its end is no box.
            if last <= end:
                most = max(most, (last - content - _LIST_HEAD_BYTES) // _LEAST_EDIT_BYTES)
            found = piece.find(b"elst", found + 1)
        place += _PIECE_BYTES
    return most


def _box(head: bytes, place: int, parent_end: int) -> tuple[bytes, int, int]:
    """The kind of the box at `place`, and where its content begins and ends."""
    size, kind, header = int.from_bytes(head[:4]), head[4:8], 8
    if size == 1:
        size, header = int.from_bytes(head[8:16]), 16
    return kind, place + header, place + size if size else parent_end
