"""`make load-sweep`: perf_analyzer on the ensemble and on each stage alone, over concurrency and over rate."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build.serve.deployment import end_on_signals
from perf.load.readings.knee import knee
from perf.load.readings.metrics import read_counters
from perf.load.traffic import analyzer, scenarios, target
from perf.load.traffic.alone import stages_alone
from perf.load.traffic.analyzer import Load, Profile, Scenario, percentiles
from perf.load.traffic.target import Target
from perf.load.traffic.workload import VIDEO_SECONDS
from perf.support import report
from perf.support.setup import DEMO_SHAPE

NO_CACHES = {"decoder.prefix_cache": "false"}
"""Every request computes everything: the sweep asks about the same videos again and again."""

RATE_SHARES = (0.3, 0.5, 0.7, 0.9, 1.1)
"""Shares of the highest throughput that the concurrency sweep saw."""

AGREEMENT_PERCENT = 5.0


@dataclass(frozen=True)
class Run:
    """A scenario at a load: requests at once, or as many as were really offered per second.

    served, served_mean_seconds: requests that ended meanwhile and their mean time, by Triton's metrics
    """

    scenario: str
    mode: str
    load: float
    profile: Profile
    served: int
    served_mean_seconds: float

    def row(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "mode": self.mode,
            "load": self.load,
            "requests_per_second": self.profile.requests_per_second,
            "tokens_per_second": sum(u["completion_tokens"] for u in self.profile.usages) / self.profile.seconds,
            "first_seconds": percentiles(self.profile.first),
            "gap_seconds": percentiles(self.profile.gaps),
            "total_seconds": percentiles(self.profile.total),
            "stage_seconds": stage_means([usage["seconds"] for usage in self.profile.usages]),
            "errors": self.profile.errors,
        }


def run(scenario: Scenario, load: Load, requests: int, served: Target, folder: Path) -> Run:
    before = read_counters(served.metrics)
    profile = analyzer.measure(scenario, load, requests, served, folder)
    counted = read_counters(served.metrics) - before
    mode = "concurrency" if load.concurrency else "rate"
    return Run(
        scenario.name,
        mode,
        load.value if mode == "concurrency" else round(profile.offered_per_second, 3),
        profile,
        counted.succeeded(scenario.model) + counted.failed(scenario.model),
        counted.mean_seconds(scenario.model),
    )


def stage_means(seconds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean seconds per request by stage and phase, `decoder.prefill`; what a request did not have counts as 0."""
    sums: dict[str, float] = defaultdict(float)
    for request in seconds:
        for stage, phases in request.items():
            if isinstance(phases, Mapping):
                for phase, value in phases.items():
                    sums[f"{stage}.{phase}"] += value
    return {name: value / len(seconds) for name, value in sums.items()}


def encoder_scenario(repository: Path) -> Scenario:
    """Stage 2's, by the dimensions of the served checkpoint."""
    config = json.loads((repository / "decoder" / "1" / "checkpoint" / "config.json").read_text())["vision_config"]
    return scenarios.encoder(config["num_position_embeddings"], config["hidden_size"] // config["num_heads"])


def sweep(arguments: argparse.Namespace, folder: Path) -> list[Run]:
    runs: list[Run] = []
    with target.attached_or_own(arguments.attach, arguments.model, NO_CACHES) as served:
        asked = scenarios.ensemble(arguments.tokens)
        analyzer.measure(asked, Load(concurrency=2), 9, served, folder)  # warm-up
        for concurrency in arguments.concurrency:
            requests = arguments.requests * min(concurrency, 4)
            runs.append(run(asked, Load(concurrency=concurrency), requests, served, folder))
        best = max(one.profile.requests_per_second for one in runs)
        for share in RATE_SHARES:
            load = Load(rate=round(share * best, 2))
            runs.append(run(asked, load, 3 * arguments.requests, served, folder))
    if not arguments.attach:
        with stages_alone(arguments.model, NO_CACHES) as (served, repository):
            alone = (scenarios.preprocess(), encoder_scenario(repository), scenarios.decoder(arguments.tokens))
            for scenario in alone:
                analyzer.measure(scenario, Load(concurrency=1), 4, served, folder)  # warm-up
                for concurrency in (1, 4):
                    load = Load(concurrency=concurrency)
                    runs.append(run(scenario, load, arguments.requests, served, folder))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="make load-sweep", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--attach", help="a host whose server on Triton's default ports is asked; stages are left out")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=30, help="per user, at most 4 users (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer (default: %(default)s)")
    arguments = parser.parse_args()
    end_on_signals()
    runs = sweep(arguments, target.CACHE / "perf_analyzer")
    rows = [one.row() for one in runs]
    ensemble = [one for one in runs if one.scenario == "ensemble"]
    sent = sum(len(one.profile.total) for one in ensemble)
    served = sum(one.served for one in ensemble)
    mean = sum(sum(one.profile.total) for one in ensemble) / sent
    served_mean = sum(one.served_mean_seconds * one.served for one in ensemble) / served
    found = knee([(row["load"], row["total_seconds"]["p95"]) for row in rows if row["mode"] == "rate"])
    report.finish(
        "load-sweep",
        workload={
            "video_seconds": VIDEO_SECONDS,
            "tokens": arguments.tokens,
            "requests": arguments.requests,
            "settings": NO_CACHES,
            "checkpoint": str(arguments.model or DEMO_SHAPE),
            "attached": arguments.attach,
        },
        columns=("scenario", "load", "requests/s", "first p50", "first p95", "gap p95", "total p50", "total p95"),
        rows=[
            (
                row["scenario"],
                f"{row['mode']} {row['load']:g}",
                row["requests_per_second"],
                row["first_seconds"]["p50"],
                row["first_seconds"]["p95"],
                row["gap_seconds"].get("p95", "-"),
                row["total_seconds"]["p50"],
                row["total_seconds"]["p95"],
            )
            for row in rows
        ],
        figures=[
            report.Figure("requests without an answer", sum(row["errors"] for row in rows), "", at_most=0),
            report.Figure(
                "requests: perf_analyzer and Triton's metrics differ by",
                100 * abs(sent / served - 1),
                "%",
                at_most=AGREEMENT_PERCENT,
            ),
            report.Figure(
                "mean total time: perf_analyzer and Triton's metrics differ by",
                100 * abs(mean / served_mean - 1),
                "%",
                at_most=AGREEMENT_PERCENT,
            ),
        ],
        series={"runs": rows, "knee_requests_per_second": found},
        folder=arguments.results,
    )


if __name__ == "__main__":
    main()
