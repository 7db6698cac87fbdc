"""Reads the model's answers about parts and puts them right: times lie in the part and are in order."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .cutting import Part

CHAPTERS_PER_PART = 8
KEY_POINTS = 4

PART_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 80},
        "summary": {"type": "string", "maxLength": 600},
        "chapters": {
            "type": "array",
            "minItems": 1,
            "maxItems": CHAPTERS_PER_PART,
            "items": {
                "type": "object",
                "properties": {
                    "start": {"type": "number"},
                    "end": {"type": "number"},
                    "title": {"type": "string", "maxLength": 80},
                    "key_points": {
                        "type": "array",
                        "maxItems": KEY_POINTS,
                        "items": {"type": "string", "maxLength": 160},
                    },
                },
                "required": ["start", "end", "title", "key_points"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["title", "summary", "chapters"],
    "additionalProperties": False,
}

MERGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 80},
        "summary": {"type": "string", "maxLength": 1200},
    },
    "required": ["title", "summary"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Chapter:
    """What happens from `start` to `end`, in seconds of the whole video."""

    start: float
    end: float
    title: str
    key_points: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """An account of a stretch of the video, in seconds of the whole."""

    start: float
    end: float
    title: str
    text: str


def read_part(answer: str, part: Part) -> tuple[Note, tuple[Chapter, ...]]:
    """The account and chapters of `part`; an answer that is no such JSON is taken for an account in one chapter."""
    content = _read(answer)
    found = [_chapter(each, part) for each in _list(content.get("chapters")) if isinstance(each, dict)]
    summary = _text(content.get("summary"))
    title = _text(content.get("title")) or (found[0].title if found else "") or _shortened(summary)
    chapters = _in_order(_placed([chapter for chapter in found if chapter.title], part), part)
    return Note(part.start, part.end, title, summary), chapters or (Chapter(part.start, part.end, title),)


def read_merged(answer: str, notes: Sequence[Note]) -> Note:
    """One account in the place of several. Times that none of them names are taken out of it."""
    content = _read(answer)
    known = {_clock_seconds(match) for note in notes for match in _CLOCK.finditer(note.text)}
    known |= {math.floor(time) for note in notes for time in (note.start, note.end)}
    text = _CLOCK.sub(lambda match: match[0] if _clock_seconds(match) in known else "", _text(content.get("summary")))
    title = _text(content.get("title")) or notes[0].title
    return Note(notes[0].start, notes[-1].end, title, _text(text) or " ".join(note.text for note in notes))


_CLOCK = re.compile(r"[\[(（]?\b(?:(\d+):)?(\d{1,2}):(\d\d)(?:\.\d+)?\b[\])）]?")


def _clock_seconds(match: re.Match[str]) -> int:
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)


def _chapter(given: dict[str, Any], part: Part) -> Chapter:
    """Not yet in its place: what is no number becomes an end of the part."""
    points = tuple(filter(None, map(_text, _list(given.get("key_points")))))
    title = _text(given.get("title")) or (_shortened(points[0]) if points else "")
    return Chapter(_number(given.get("start"), part.start), _number(given.get("end"), part.end), title, points)


def _placed(chapters: Sequence[Chapter], part: Part) -> list[Chapter]:
    """Times within the part. A model that counts from the part's start instead of the video's is believed so."""
    times = [time for chapter in chapters for time in (chapter.start, chapter.end)]
    length = part.end - part.start
    counted_from_part = all(0 <= time <= length for time in times) and not any(
        part.start < time <= part.end for time in times
    )
    shift = part.start if counted_from_part else 0.0

    def within(time: float) -> float:
        return min(max(time + shift, part.start), part.end)

    placed: list[Chapter] = []
    for chapter in chapters:
        start, end = sorted((within(chapter.start), within(chapter.end)))
        placed.append(replace(chapter, start=start if start < part.end else part.start, end=end))
    return placed


def _in_order(chapters: Sequence[Chapter], part: Part) -> tuple[Chapter, ...]:
    """Rising, each ending at the latest where the next begins. Those that begin at once are one, with all points."""
    ordered: list[Chapter] = []
    for chapter in sorted(chapters, key=lambda chapter: chapter.start):
        if ordered and chapter.start <= ordered[-1].start:
            first = ordered[-1]
            points = (*first.key_points, chapter.title, *chapter.key_points)
            ordered[-1] = replace(first, end=max(first.end, chapter.end), key_points=points)
        else:
            ordered.append(chapter)
    ends = [*(chapter.start for chapter in ordered), part.end][1:]
    return tuple(
        replace(chapter, end=min(chapter.end, end) if chapter.end > chapter.start else end)
        for chapter, end in zip(ordered, ends, strict=False)
    )


_BEGUN_TEXT = re.compile(r'"(title|summary)"\s*:\s*"((?:[^"\\]|\\.)*)')


def _read(answer: str) -> dict[str, Any]:
    """The JSON object in the answer; of one that was cut off, what stands up to its last chapter, or its texts.

    An answer that is none is taken for a summary.
    """
    text = answer[answer.find("{") :].strip().removesuffix("```").rstrip()
    ends = [len(text), *(match.end() for match in reversed(list(re.finditer(r"\}", text))))]
    for end, closing in ((end, closing) for end in ends for closing in ("", "]}")):
        try:
            content = json.loads(text[:end] + closing)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            return content
    # The first of each name: chapters come after.
    texts = dict(reversed(_BEGUN_TEXT.findall(answer)))
    return texts or {"summary": answer}


def _text(value: object) -> str:
    """On one line; nothing for what is no text."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object, otherwise: float) -> float:
    # A JSON number may be an integer of any size, or (Python accepts them) NaN and Infinity.
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
        return float(value)
    return otherwise


def _shortened(text: str, characters: int = 80) -> str:
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"
