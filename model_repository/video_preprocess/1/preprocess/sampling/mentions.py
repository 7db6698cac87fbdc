"""Times that a question names: "at 32:15", "between 1:00:00 and 1:10:00", "in the last minute", "第25分钟".

Every time in the text is found first, be it a clock's or a length; the words around it say what it means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Literal

AROUND_SECONDS = 5.0
"""How much is looked at on either side of a moment that is named."""
MOST_CHARACTERS = 2000
"""The end of a longer text is read: searching takes time that grows with the square of the text."""

_QUESTIONS = 16
"""Questions whose times are kept."""

_SECONDS_PER = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "秒", "秒钟"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes", "分", "分钟"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "小时", "个小时"), 3600),
}
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: number for words in (_WORDS, "一二三四五六七八九十") for number, word in enumerate(words, start=1)}
_NUMBERS |= {"a": 1, "an": 1, "两": 2}

_COUNT = rf"\d+(?:\.\d+)?|[两一二三四五六七八九十]+|\b(?:{'|'.join(_WORDS)}|an?)\b"
_UNIT = r"个?小时|分钟?|秒钟?|(?:hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)\b"
_PART = re.compile(rf"({_COUNT})[\s-]*({_UNIT})", re.IGNORECASE)
_LENGTH = rf"(?:{_COUNT})[\s-]*(?:{_UNIT})(?:\s*(?:and\s+)?(?:{_COUNT})[\s-]*(?:{_UNIT}))*"
_TIME = re.compile(
    r"(?<![\d:.])(?:(?P<hours>\d{1,2}):)?(?P<minutes>\d{1,3}):(?P<seconds>[0-5]\d(?:\.\d+)?)(?![\d:])"
    rf"|第\s*(?P<nth>{_COUNT})\s*(?P<nth_unit>{_UNIT})"
    r"|\b(?P<english_nth>\d+)(?:st|nd|rd|th)\s+(?P<english_unit>hour|minute|second)\b"
    r"|\b(?P<named_unit>hour|minute|second)\s+(?P<number>\d+)\b"
    rf"|(?P<length>{_LENGTH})"
    r"|(?<=last )(?P<single>hour|minute|second)\b|(?<=first )(?P<first_single>hour|minute|second)\b",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\s*(?:to|until|till|-|–|—|~|到|至)\s*", re.IGNORECASE)
_AND = re.compile(r"\s*(?:and|和|与)\s*", re.IGNORECASE)
_BETWEEN = re.compile(r"(?:\bbetween|在)\s*(?:the\s+)?$", re.IGNORECASE)
_FROM_END = re.compile(r"(?:\b(?:last|final)|最后)\s*的?\s*$", re.IGNORECASE)
_FROM_START = re.compile(r"(?:\b(?:first|opening)|前|最初|开头)\s*的?\s*$", re.IGNORECASE)
_AT = re.compile(
    r"(?:\b(?:at|around|about|near|by|after|before|from|since|until)(?:\s+(?:about|around))?(?:\s+the)?|在)\s*$",
    re.IGNORECASE,
)
_MARK = re.compile(r"\s*(?:mark\b|处|时|的时候|左右)", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """Seconds of the video."""

    start: float
    end: float


@dataclass(frozen=True)
class Mentions:
    """Times of a video that are named: `spans` in order, overlapping ones joined, and of them the `moments`, in seconds
    and in the order of the text."""

    spans: tuple[Span, ...] = ()
    moments: tuple[float, ...] = ()


NOTHING_NAMED = Mentions()


def mentioned_times(text: str, duration: float) -> Mentions:
    """The times of a video of `duration` seconds that `text` names.

    A moment gets AROUND_SECONDS on either side; "the 25th minute" is the minute from 24:00 on. A length that no word
    makes a time of ("for five minutes") names none. What lies outside the video is left out, and what is said before
    the last MOST_CHARACTERS.
    """
    spans: list[Span] = []
    moments: list[float] = []
    for time in _times(text[-MOST_CHARACTERS:]):
        start, end = time.span.start, time.span.end
        match time.kind:
            case "named" if start == end:
                moments.append(start)
                spans.append(Span(start - AROUND_SECONDS, end + AROUND_SECONDS))
            case "named" | "range":
                spans.append(time.span)
            case "from start":
                spans.append(Span(0, end))
            case "from end":
                spans.append(Span(duration - end, duration))
            case "length":
                pass
    return Mentions(_joined(spans, duration), tuple(moment for moment in moments if moment <= duration))


@dataclass(frozen=True)
class _Time:
    """A time in a text, whatever video it is about. A bare "length" names no time of it."""

    span: Span
    kind: Literal["named", "range", "from start", "from end", "length"]
    joined: bool = False
    """The words up to the next time make a range of the two."""


@lru_cache(maxsize=_QUESTIONS)
def _times(text: str) -> tuple[_Time, ...]:
    """The times of a text. Kept, for a request may look at hundreds of videos, and at each again until all fit."""
    found = list(_TIME.finditer(text))
    return tuple(_ranges([_time(text, match, next_) for match, next_ in zip_longest(found, found[1:])]))


def _time(text: str, match: re.Match[str], following: re.Match[str] | None) -> _Time:
    before, after = text[: match.start()], text[match.end() :]
    joined = following is not None and _joins(before, text[match.end() : following.start()])
    span = _span(match)
    if _FROM_END.search(before):
        return _Time(span, "from end", joined)
    if _FROM_START.search(before):
        return _Time(span, "from start", joined)
    named = not match["length"] or _AT.search(before) or _MARK.match(after)
    return _Time(span, "named" if named else "length", joined)


def _joins(before: str, between: str) -> bool:
    """Whether the words make a range: "1:00 to 2:00", "between 1:00 and 2:00"."""
    return bool(_RANGE.fullmatch(between) or (_AND.fullmatch(between) and _BETWEEN.search(before)))


def _ranges(times: Iterable[_Time]) -> Iterator[_Time]:
    rest = iter(times)
    for time in rest:
        yield _Time(Span(time.span.start, next(rest).span.end), "range") if time.joined else time


def _span(match: re.Match[str]) -> Span:
    """The meaning of a time by itself, in seconds: a moment, or for "the 25th minute" all of it."""
    if match["minutes"]:
        moment = int(match["hours"] or 0) * 3600 + int(match["minutes"]) * 60 + float(match["seconds"])
    elif unit := match["nth_unit"] or match["english_unit"]:
        number, seconds = _number(match["nth"] or match["english_nth"]), _SECONDS_PER[unit.lower()]
        if seconds > 1:
            return Span((number - 1) * seconds, number * seconds)
        moment = number
    elif match["named_unit"]:
        moment = float(match["number"]) * _SECONDS_PER[match["named_unit"].lower()]
    elif single := match["single"] or match["first_single"]:
        moment = _SECONDS_PER[single.lower()]
    else:
        moment = sum(_number(count) * _SECONDS_PER[unit.lower()] for count, unit in _PART.findall(match["length"]))
    return Span(moment, moment)


def _number(text: str) -> float:
    if text[0].isdigit():
        return float(text)
    tens, ten, ones = text.rpartition("十")
    if ten:
        return _NUMBERS.get(tens, 1) * 10 + _NUMBERS.get(ones, 0)
    return _NUMBERS[text.lower()] if text.lower() in _NUMBERS else _NUMBERS[text[0]]


def _joined(spans: list[Span], duration: float) -> tuple[Span, ...]:
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        start, end = max(span.start, 0.0), min(span.end, duration)
        if start > end:
            continue
        if joined and start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, end))
        else:
            joined.append(Span(start, end))
    return tuple(joined)
