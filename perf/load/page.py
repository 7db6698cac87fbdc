"""`make load-report`: one self-contained HTML page of the results in a folder, beside those of another if given."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from perf.load import charts
from perf.support.report import RESULTS

NAMES = ("load-sweep", "load-users", "load-batching", "load-soak", "load-overload", "load-chaos")
TITLES = {
    "load-sweep": "perf_analyzer: concurrency, rate, each stage alone",
    "load-users": "locust: users who behave like users",
    "load-batching": "In-flight batching",
    "load-soak": "Soak",
    "load-overload": "Overload",
    "load-chaos": "Chaos: stages killed under load",
}
AGREEMENT_PERCENT = 5.0


@dataclass(frozen=True)
class Section:
    """A result with its charts as HTML, and the result it is laid beside."""

    title: str
    result: Mapping[str, Any]
    charts: tuple[str, ...]
    baseline: Mapping[str, Any] | None
    baseline_charts: tuple[str, ...]


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The load tests' results in a folder, by name. Raises ValueError when there is none."""
    found = {name: json.loads(path.read_text()) for name in NAMES if (path := folder / f"{name}.json").is_file()}
    if not found:
        raise ValueError(f"{folder} has none of {', '.join(f'{name}.json' for name in NAMES)}; run `make load` first")
    return found


def drawn(name: str, series: Mapping[str, Any]) -> Iterator[go.Figure]:
    """The charts of one result."""
    match name:
        case "load-sweep":
            runs = series["runs"]
            yield charts.throughput(runs)
            yield charts.latency(runs, "concurrency", "first_seconds", "Time to first token")
            yield charts.latency(runs, "concurrency", "gap_seconds", "Time between groups of tokens")
            yield charts.latency(runs, "concurrency", "total_seconds", "Total time")
            knee = series["knee_requests_per_second"]
            yield charts.latency(runs, "rate", "total_seconds", "Total time, Poisson arrivals", knee)
            yield charts.latency(runs, "rate", "first_seconds", "Time to first token, Poisson arrivals", knee)
            yield charts.stage_share(runs)
            yield charts.stages_alone(runs)
        case "load-users":
            if failures := series["failures"]:
                yield charts.errors({f"{one['name']}: {one['error']}"[:80]: int(one["count"]) for one in failures})
        case "load-batching":
            yield charts.batching(series["tokens_per_second"])
        case "load-soak":
            yield charts.memory(series["samples"])
            yield charts.resources(series["samples"])
            if unexpected := series["unexpected"]:
                yield charts.errors(unexpected)
        case "load-overload":
            yield charts.endings(series["outcomes"], "How requests ended while too many were offered")
        case "load-chaos":
            yield charts.recovery(series["kills"])
            yield charts.endings(series["outcomes"], "How requests ended while stages were killed")
            if errors := series["errors"]:
                yield charts.errors(errors)


def agreement(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """perf_analyzer's and locust's requests per second on the same workload, and how far apart they are; None where
    they were not both measured at one concurrency."""
    if not {"load-sweep", "load-users"} <= results.keys():
        return None
    steady = results["load-users"]["series"]["steady"]
    for run in results["load-sweep"]["series"]["runs"]:
        if (run["scenario"], run["mode"], run["load"]) == ("ensemble", "concurrency", steady["users"]):
            rates = run["requests_per_second"], steady["per_second"]
            percent = 100 * abs(rates[0] / rates[1] - 1)
            return {
                "concurrency": steady["users"],
                "perf_analyzer": rates[0],
                "locust": rates[1],
                "percent": percent,
                "holds": percent <= AGREEMENT_PERCENT,
            }
    return None


def page(results: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as HTML; plotly's script is in it, nothing is loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = _cell
    sections = [
        Section(
            TITLES[name],
            result,
            _as_html(name, result),
            baseline.get(name),
            _as_html(name, baseline[name]) if name in baseline else (),
        )
        for name, result in results.items()
    ]
    newest = max(results.values(), key=lambda result: str(result["time"]))
    return environment.get_template("page.html.jinja").render(
        sections=sections, newest=newest, agreement=agreement(results), plotly=get_plotlyjs()
    )


def _as_html(name: str, result: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
        for figure in drawn(name, result["series"])
    )


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make load-report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument("--baseline", type=Path, help="the folder of results to lay them beside")
    parser.add_argument("--output", type=Path, required=True, help="where the page goes")
    arguments = parser.parse_args()
    try:
        html = page(read_results(arguments.results), read_results(arguments.baseline) if arguments.baseline else {})
    except ValueError as error:
        parser.error(str(error))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(html)
    print(f"written to {arguments.output} ({len(html.encode()) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
