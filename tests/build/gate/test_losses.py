"""Who is told that a stage died: those whose requests are lost by it, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from build.serve.gate import losses
from build.serve.gate.losses import Losses, Waiting


@pytest.fixture
def died(monkeypatch) -> Callable[..., list[str]]:
    """Lets a stage die while a call waits, and then something happen: the reasons that the call was ended with."""
    monkeypatch.setattr(losses, "_ENDING_SECONDS", 0.05)

    def run(stage: str, before: Callable[[Waiting], None], after: Callable[[Waiting], None]) -> list[str]:
        reasons: list[str] = []

        async def live() -> None:
            every, waiting = Losses(), Waiting(reasons.append)
            with every.watching(waiting):
                before(waiting)
                every.stage_died(stage, 7)
                after(waiting)
                await asyncio.sleep(0.1)

        asyncio.run(live())
        return reasons

    return run


def ask(*models: str) -> Callable[[Waiting], None]:
    def run(waiting: Waiting) -> None:
        for model in models:
            waiting.ask(model)

    return run


def answer(*models: str) -> Callable[[Waiting], None]:
    def run(waiting: Waiting) -> None:
        for model in models:
            waiting.answer(model)

    return run


@pytest.mark.parametrize("stage", ["decoder", "vision_encoder", "video_preprocess"])
def test_the_ensemble_is_lost_with_any_stage(died, stage):
    assert died(stage, ask("qwen3_vl"), ask()) == [f"{stage} died and is being loaded again: retry in 7 s"]


def test_looks_are_lost_with_stage_1_alone(died):
    assert len(died("video_preprocess", ask("video_preprocess"), ask())) == 1
    assert died("decoder", ask("video_preprocess"), ask()) == []


def test_who_is_answered_soon_has_lost_nothing(died):
    assert died("vision_encoder", ask("qwen3_vl", "qwen3_vl"), answer("qwen3_vl", "qwen3_vl")) == []
    assert len(died("vision_encoder", ask("qwen3_vl", "qwen3_vl"), answer("qwen3_vl"))) == 1


def test_what_was_asked_later_goes_on(died):
    def again(waiting: Waiting) -> None:
        waiting.answer("qwen3_vl")
        waiting.ask("qwen3_vl")

    assert died("video_preprocess", ask("qwen3_vl"), again) == []
    assert died("decoder", ask(), ask("qwen3_vl")) == []


def test_a_refusal_that_names_no_model_counts(died):
    def refused(waiting: Waiting) -> None:
        waiting.ask("qwen3_vl")
        waiting.answer("")
        waiting.answer("")
        assert not waiting.awaited

    assert died("decoder", refused, ask()) == []
