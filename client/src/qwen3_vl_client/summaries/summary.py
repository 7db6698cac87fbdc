"""A summary, and what is told while it is made."""

from __future__ import annotations

from dataclasses import dataclass

from .cutting import Part
from .notes import Chapter, Note


@dataclass(frozen=True)
class Summary:
    """The account of a whole video. Times are seconds of it."""

    title: str
    text: str
    seconds: float
    chapters: tuple[Chapter, ...]
    """In order; none overlaps the next."""
    notes: tuple[Note, ...]
    """One for each part."""


@dataclass(frozen=True)
class Cut:
    """The video is cut; so many of its parts were summarised before, as the journal says."""

    parts: tuple[Part, ...]
    resumed: int


@dataclass(frozen=True)
class PartDone:
    """A part is summarised. Parts come in the order in which they are done."""

    part: Part
    note: Note
    chapters: tuple[Chapter, ...]


@dataclass(frozen=True)
class Merged:
    """Notes of `level` (0: those of parts) became one of the next, `done` of `total` there."""

    level: int
    done: int
    total: int
    note: Note


SummaryEvent = Cut | PartDone | Merged | Summary
