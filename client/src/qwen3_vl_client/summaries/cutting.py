"""Cuts a video into parts at its own boundaries: new scenes, pauses in speech, or where the picture changes most."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_SHARE = 0.5
"""A part has at least this share of the even length."""
_CLEAR_CHANGE = 0.5
"""A change of the picture that is worth cutting at."""


@dataclass(frozen=True)
class Part:
    """Seconds of a video; the first part starts and the last ends with it."""

    index: int
    start: float
    end: float


def cut(
    seconds: float,
    part_seconds: float,
    cuts: Sequence[float],
    changes: Sequence[float],
    pauses: Sequence[tuple[float, float]] = (),
) -> tuple[Part, ...]:
    """Divides 0 to `seconds` into about even parts, none longer than `part_seconds`.

    Each ends near to where it would end by an even division: at a cut while nothing is said, else in a pause, else at
    any cut; without one nearby, where the picture changes most; and where nothing changes, there.

    Args:
        cuts: seconds at which new scenes begin, rising.
        changes: how much the picture changes, 0 to 1, in equal spans of 0 to `seconds`.
        pauses: starts and ends of the times between subtitle lines, rising, none within another; empty where nothing is
            known of what is said.
    """
    begins = [start for start, _ in pauses]
    silent = [time for time in cuts if (index := bisect_right(begins, time)) and time <= pauses[index - 1][1]]
    boundaries = (silent, [(start + end) / 2 for start, end in pauses], cuts)
    parts: list[Part] = []
    start = 0.0
    while seconds - start > part_seconds:
        even = (seconds - start) / math.ceil((seconds - start) / part_seconds)
        least = _LEAST_SHARE * even
        earliest, latest = start + least, min(start + part_seconds, seconds - least)
        ends = (_nearest(start + even, earliest, latest, times) for times in boundaries)
        end = next((end for end in ends if end is not None), None)
        if end is None:
            end = _change(earliest, latest, seconds, changes)
        parts.append(Part(len(parts), start, start + even if end is None else end))
        start = parts[-1].end
    return (*parts, Part(len(parts), start, seconds))


def _nearest(even: float, earliest: float, latest: float, times: Sequence[float]) -> float | None:
    # A video may have as many times as parts: none is looked at again for each of them.
    first, beyond = bisect_left(times, earliest), bisect_right(times, latest)
    after = bisect_left(times, even, first, max(first, beyond))
    return min(times[max(after - 1, first) : min(after + 1, beyond)], key=lambda time: abs(time - even), default=None)


def _change(earliest: float, latest: float, seconds: float, changes: Sequence[float]) -> float | None:
    """The beginning of the span with the clearest change."""
    span = seconds / max(len(changes), 1)
    around = range(int(earliest / span), min(int(latest / span) + 2, len(changes)))
    nearby = [index for index in around if earliest <= index * span <= latest]
    clearest = max(nearby, key=lambda index: changes[index], default=None)
    if clearest is None or changes[clearest] < _CLEAR_CHANGE:
        return None
    return clearest * span
