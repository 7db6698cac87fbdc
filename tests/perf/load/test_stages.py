"""perf_analyzer on a real server: the doubles of stages keep to the contract between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from perf.load.readings.metrics import read_counters
from perf.load.sweep import NO_CACHES, encoder_scenario
from perf.load.traffic import analyzer, scenarios
from perf.load.traffic.alone import stages_alone
from perf.load.traffic.analyzer import Load, Scenario
from perf.load.traffic.target import Target


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Target, Path]]:
    with stages_alone(None, NO_CACHES) as served:
        yield served


@pytest.mark.parametrize("stage", ["video_preprocess", "vision_encoder", "decoder"])
def test_a_stage_answers_alone(stage: str, server: tuple[Target, Path], tmp_path: Path) -> None:
    target, repository = server
    found: dict[str, Scenario] = {
        scenario.name: scenario
        for scenario in (scenarios.preprocess(), encoder_scenario(repository), scenarios.decoder(8, prompt_tokens=40))
    }
    scenario = found[stage]
    before = read_counters(target.metrics)
    profile = analyzer.measure(scenario, Load(concurrency=2), 6, target, tmp_path)
    counted = read_counters(target.metrics) - before
    assert profile.errors == 0
    assert len(profile.total) == counted.succeeded(scenario.model) == 6
    assert (tmp_path / f"{stage}-concurrency-2.csv").is_file()
    if stage == "decoder":
        assert [usage["completion_tokens"] for usage in profile.usages] == [8] * 6
        assert [usage["prompt_tokens"] for usage in profile.usages] == [40] * 6
