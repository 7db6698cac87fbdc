"""Which notes are merged at once: as many as a context holds.

A token of the models' byte-level vocabulary stands for a byte at least, so that bytes bound tokens in any language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .notes import Note

_MOST = 8
_FRAME_BYTES = 64
"""Of a note in the question beside its words: its times and punctuation."""


def grouped(notes: Sequence[Note], room_bytes: int) -> list[tuple[Note, ...]]:
    """Neighbours together, two to eight at once, the last maybe alone; more than two only if they fit the room."""
    groups: list[list[Note]] = []
    for note in notes:
        last = groups[-1] if groups else []
        fits = sum(map(_bytes, [*last, note])) <= room_bytes
        if last and len(last) < _MOST and (fits or len(last) < 2):
            last.append(note)
        else:
            groups.append([note])
    return [tuple(group) for group in groups]


def shortened(notes: Sequence[Note], room_bytes: int) -> list[Note]:
    """The notes with their texts cut so that all fit the room."""
    if sum(map(_bytes, notes)) <= room_bytes:
        return list(notes)
    share = max(room_bytes // len(notes) - _FRAME_BYTES, 0)
    return [
        replace(note, title=_cut(note.title, share // 4), text=_cut(note.text, share - share // 4)) for note in notes
    ]


def _bytes(note: Note) -> int:
    return _FRAME_BYTES + len(note.title.encode()) + len(note.text.encode())


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")
