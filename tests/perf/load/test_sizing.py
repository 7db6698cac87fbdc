"""From a sweep to a number of GPUs."""

import pytest

from perf.load.sizing import Pace, gpus, pace, table


def run(rate: float, p50: float, p95: float, scenario: str = "ensemble") -> dict[str, object]:
    seconds = {"p50": p50, "p95": p95}
    return {"scenario": scenario, "requests_per_second": rate, "first_seconds": seconds, "total_seconds": seconds}


RUNS = [run(1, 0.5, 0.6), run(3, 1.0, 1.5), run(4, 3.0, 5.0), run(100, 0.01, 0.02, scenario="vision_encoder")]


def test_the_pace_is_the_highest_within_the_target() -> None:
    assert pace(RUNS, "total", 2.0) == Pace(3, 3.0)
    assert pace(RUNS, "first", 10.0) == Pace(4, 12.0)


def test_a_target_that_nobody_met_is_refused_with_the_fastest() -> None:
    with pytest.raises(ValueError, match=r"0\.1 s; the fastest p95 that was measured is 0\.60 s"):
        pace(RUNS, "total", 0.1)


def test_gpus_keep_headroom_and_are_bounded_by_what_fits() -> None:
    assert gpus(10, Pace(5, 4), fit_at_once=8, headroom=0) == 2
    assert gpus(10, Pace(5, 4), fit_at_once=8, headroom=0.5) == 4
    # Half of what was at once fits: half the pace.
    assert gpus(10, Pace(5, 4), fit_at_once=2, headroom=0) == 4


def test_the_table_has_every_profile_and_what_does_not_fit() -> None:
    lines = table(Pace(5, 4), 10, 131072, 0.3).splitlines()
    assert len(lines) > 10
    assert any("does not fit" in line for line in lines)
