"""A few of the schedules of `make fuzz-engine`."""

from __future__ import annotations

import pytest

from perf.checks import fuzz_engine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> fuzz_engine.Model:
    return fuzz_engine.Model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("seed", range(0, 120, 30))
def test_any_schedule_gives_the_tokens_that_each_gets_alone(model: fuzz_engine.Model, seed: int) -> None:
    shared = sum(fuzz_engine.Schedule(model, seed + turn).run() for turn in range(30))
    assert shared > 0


def test_schedules_whose_decode_steps_are_a_gpus(model: fuzz_engine.Model) -> None:
    assert sum(fuzz_engine.Schedule(model, seed, by_table=True).run() for seed in range(10)) > 0


def test_prompts_that_begin_alike_are_answered_unlike(model: fuzz_engine.Model) -> None:
    """Else a block that is shared wrongly would go unnoticed."""
    answers = [model.alone(number) for number in range(len(model.asked))]
    assert len(set(answers)) > 0.9 * len(answers)
