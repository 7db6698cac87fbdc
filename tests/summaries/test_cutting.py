"""Parts begin where the video does something new."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from qwen3_vl_client.summaries.cutting import Part, _nearest, cut

seconds = st.floats(1, 50_000)


def test_short_video_is_one_part() -> None:
    assert cut(200.0, 300.0, [50.0], []) == (Part(0, 0.0, 200.0),)


def test_cuts_nearest_to_even_parts() -> None:
    parts = cut(1000.0, 400.0, [100.0, 310.0, 350.0, 640.0, 660.0], [])
    assert [part.end for part in parts] == [350.0, 660.0, 1000.0]


def test_nobody_is_interrupted() -> None:
    pauses = [(320.0, 360.0), (600.0, 620.0)]
    parts = cut(1000.0, 400.0, [330.0, 334.0, 640.0, 660.0], [], pauses)
    assert [part.end for part in parts] == [334.0, 610.0, 1000.0]


def test_without_cuts_where_the_picture_changes_most() -> None:
    changes = [0.1] * 100
    changes[47], changes[52] = 0.9, 0.6
    assert [part.end for part in cut(1000.0, 600.0, [], changes)] == [470.0, 1000.0]


def test_where_nothing_changes_evenly() -> None:
    assert [part.end for part in cut(900.0, 400.0, [], [0.2] * 50)] == [300.0, 600.0, 900.0]


def test_what_is_near_is_found_without_looking_at_the_rest() -> None:
    """As many times as there may be: each part costs as much as with few of them."""

    class Counted(list[float]):
        looked_at = 0

        def __getitem__(self, index: Any) -> Any:
            Counted.looked_at += 1
            return super().__getitem__(index)

        def __iter__(self) -> Iterator[float]:
            Counted.looked_at += len(self)
            return super().__iter__()

    times = [number * 0.5 for number in range(100_000)]
    pauses = [(time, time + 0.1) for time in times]
    parts = cut(50_000.0, 25.0, Counted(times), Counted([0.2] * 100_000), pauses)
    assert len(parts) == 2000
    assert Counted.looked_at < 10 * len(times)


@given(st.floats(0, 100), st.floats(0, 50), st.floats(0, 50), st.lists(st.floats(0, 100), max_size=20))
def test_the_nearest_time_is_the_nearest_of_all(
    earliest: float, more: float, still_more: float, times: list[float]
) -> None:
    even, latest = earliest + more, earliest + more + still_more
    nearby = [time for time in sorted(times) if earliest <= time <= latest]
    expected = min(nearby, key=lambda time: abs(time - even), default=None)
    assert _nearest(even, earliest, latest, sorted(times)) == expected


@given(seconds, st.floats(1, 5000), st.lists(seconds, max_size=200), st.lists(st.floats(0, 1), max_size=512))
def test_parts_cover_the_video_and_are_never_too_long(
    length: float, part_seconds: float, cuts: list[float], changes: list[float]
) -> None:
    part_seconds = max(part_seconds, length / 500)
    parts = cut(length, part_seconds, sorted(cuts), changes)
    assert (parts[0].start, parts[-1].end) == (0.0, length)
    assert [part.index for part in parts] == list(range(len(parts)))
    assert all(before.end == after.start for before, after in pairwise(parts))
    assert all(0 < part.end - part.start <= part_seconds * 1.000001 for part in parts)
    assert len(parts) <= 2 * length / part_seconds + 2
