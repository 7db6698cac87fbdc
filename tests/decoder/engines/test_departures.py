"""When a refused request may come back."""

from __future__ import annotations

import pytest

from engines import departures
from engines.departures import WINDOW, Departures


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(departures, "time", made)
    return made


def test_the_latest_pace_tells_the_time(clock: Clock) -> None:
    pace = Departures()
    assert pace.seconds_until(3) == 1
    for _ in range(WINDOW + 1):
        clock.now += 2.0
        pace.add()
    assert pace.seconds_until(5) == 10
    # Nobody leaves any more: the pace falls.
    clock.now += 2.0 * WINDOW
    assert pace.seconds_until(5) == 20
    for _ in range(WINDOW + 1):
        clock.now += 0.01
        pace.add()
    assert pace.seconds_until(5) == 1


def test_before_anyone_has_left_the_time_so_far_counts(clock: Clock) -> None:
    pace = Departures()
    clock.now += 7.5
    assert pace.seconds_until(2) == 15
