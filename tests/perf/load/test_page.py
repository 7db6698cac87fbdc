"""The page: self-contained, complete, beside another run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from perf.load import page

RUN = {
    "requests_per_second": 2.0,
    "tokens_per_second": 64.0,
    "stage_seconds": {"preprocess.decode": 0.1, "decoder.waited_for_blocks": 0.2},
    "errors": 0,
    **{f"{name}_seconds": {"p50": 1.0, "p90": 2.0, "p95": 3.0, "p99": 4.0} for name in ("first", "gap", "total")},
}
SAMPLE = {
    "seconds": 1.0,
    "requests": 10,
    "processes": {"triton": {"memory_mib": 100.0, "handles": 30, "threads": 20}},
    "shared_memory_mib": 8.0,
    "blocks_held": 4,
}
SERIES: dict[str, dict[str, Any]] = {
    "load-sweep": {
        "runs": [
            {"scenario": "ensemble", "mode": "concurrency", "load": 4.0, **RUN},
            {"scenario": "ensemble", "mode": "rate", "load": 1.5, **RUN},
            {"scenario": "decoder", "mode": "concurrency", "load": 4.0, **RUN},
        ],
        "knee_requests_per_second": 1.5,
    },
    "load-users": {
        "failures": [{"name": "video", "error": "<b>broken</b>", "count": 2}],
        "steady": {"users": 4, "per_second": 2.05, "mean_seconds": 1.0},
    },
    "load-batching": {"tokens_per_second": {"1": 10.0, "8": 40.0}},
    "load-soak": {"samples": [SAMPLE, SAMPLE], "unexpected": {"video: internal": 1}},
    "load-overload": {"outcomes": [[0.5, 0.1, "resource_exhausted"], [1.5, 1.0, "answered"]]},
    "load-chaos": {
        "kills": [["decoder", 1.0, 2.5]],
        "outcomes": [[0.5, 0.1, "answered"], [1.5, 1.0, "unavailable"]],
        "errors": {"unavailable": 1},
    },
}


def result(name: str, series: dict[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": name,
        "time": "2026-01-01T00:00:00+00:00",
        "machine": {"processor": "CPU", "cores": 2, "memory_gib": 8.0, "system": "Linux", "gpu": None},
        "versions": {"python": "3.11"},
        "workload": {"requests": 10},
        "table": [{"what": "memory", "MiB": 1.23456}],
        "figures": [
            {"name": f"bar of {name}", "value": 2.0, "unit": "s", "at_least": None, "at_most": 1, "holds": False}
        ],
        "series": series,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results")
    for name, series in SERIES.items():
        (path / f"{name}.json").write_text(json.dumps(result(name, series)))
    return path


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return page.page(page.read_results(folder), {})


def test_every_result_is_on_the_page(html: str) -> None:
    for name, title in page.TITLES.items():
        assert title in html
        assert f"bar of {name}" in html
    assert html.count('class="missed">NO') == len(SERIES)


def test_every_chart_is_on_the_page(html: str) -> None:
    drawn = sum(len(list(page.drawn(name, series))) for name, series in SERIES.items())
    assert drawn == 17
    assert html.count("Plotly.newPlot(") >= drawn
    assert "knee at 1.5" in html


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    own = html.replace(page.get_plotlyjs(), "")
    assert not re.search(r"""(src|href)=["']http""", own)
    assert len(html.encode()) < 8e6


def test_what_the_server_says_is_no_markup(html: str) -> None:
    assert "<b>broken" not in html.replace(page.get_plotlyjs(), "")


def test_tools_are_held_against_each_other() -> None:
    results = {name: result(name, SERIES[name]) for name in ("load-sweep", "load-users")}
    found = page.agreement(results)
    assert found is not None
    assert found["percent"] == pytest.approx(100 * (1 - 2 / 2.05))
    assert found["holds"]
    results["load-users"]["series"] = {**SERIES["load-users"], "steady": {"users": 4, "per_second": 3.0}}
    apart = page.agreement(results)
    assert apart is not None
    assert not apart["holds"]
    assert "perf_analyzer is compiled" in page.page(results, {})
    assert page.agreement({"load-sweep": results["load-sweep"]}) is None


def test_two_runs_side_by_side(folder: Path) -> None:
    results = page.read_results(folder)
    both = page.page(results, results)
    assert both.count("Beside an earlier run") == len(SERIES)
    assert both.count("Plotly.newPlot(") > page.page(results, {}).count("Plotly.newPlot(")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make load"):
        page.read_results(tmp_path)
