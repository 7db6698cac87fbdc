"""`make load-sizing`: how many GPUs a load needs, from a sweep on one of them and from the planner."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build.gpu.planner.models import find_model, published_sizes
from build.gpu.planner.planning import Refusal, find_fit
from build.gpu.planner.profiles import profiles
from perf.support.report import RESULTS

MEASURES = {"first": "first_seconds", "total": "total_seconds"}


@dataclass(frozen=True)
class Pace:
    """The load of one GPU within the target: requests per second, and the mean number of requests at once meanwhile."""

    requests_per_second: float
    at_once: float


def pace(runs: Sequence[Mapping[str, Any]], measure: str, target_seconds: float) -> Pace:
    """The highest throughput of the ensemble in a sweep whose p95 of `measure` is within the target.

    By Little's law requests at once are throughput times the median time of a request. ValueError if none is within.
    """
    within = [run for run in runs if run["scenario"] == "ensemble" and run[MEASURES[measure]]["p95"] <= target_seconds]
    if not within:
        fastest = min(run[MEASURES[measure]]["p95"] for run in runs if run["scenario"] == "ensemble")
        raise ValueError(f"the target is {target_seconds:g} s; the fastest p95 that was measured is {fastest:.2f} s")
    best = max(within, key=lambda run: float(run["requests_per_second"]))
    rate = float(best["requests_per_second"])
    return Pace(rate, rate * float(best["total_seconds"]["p50"]))


def gpus(offered: float, one: Pace, fit_at_once: int, headroom: float) -> int:
    """GPUs for `offered` requests per second, each used to `1 - headroom` of what it can do.

    `fit_at_once`: requests that the KV cache holds. Where fewer fit than were measured at once, it is slower in
    proportion: the others wait.
    """
    rate = one.requests_per_second * min(1.0, fit_at_once / max(one.at_once, 1e-9))
    return math.ceil(offered / (rate * (1 - headroom)))


def table(one: Pace, offered: float, context_tokens: int, headroom: float) -> str:
    """Markdown: per profile and published size, what fits and how many GPUs it takes at the measured pace."""
    lines = [
        "| GPU | model | weights, KV cache | requests at once that fit | GPUs, if each keeps the measured pace |",
        "| --- | --- | --- | --- | --- |",
    ]
    for profile in profiles().values():
        for size in published_sizes():
            model = find_model(size)
            plan = find_fit(profile, model, context_tokens=context_tokens)
            if isinstance(plan, Refusal):
                cells = ["does not fit", "-", "-"]
            else:
                count = gpus(offered, one, plan.max_concurrency, headroom)
                cells = [f"{plan.weights}, {plan.kv_cache}", str(plan.max_concurrency), str(count)]
            lines.append(f"| {profile.name} | {model.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make load-sizing", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder with load-sweep.json")
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second to serve (default: %(default)s)")
    parser.add_argument("--measure", choices=list(MEASURES), default="first", help="first word or whole answer")
    parser.add_argument("--target-seconds", type=float, default=2.0, help="for its p95 (default: %(default)s)")
    parser.add_argument("--context", type=int, default=16384, help="tokens of a request (default: %(default)s)")
    parser.add_argument("--headroom", type=float, default=0.3, help="share of a GPU to keep (default: %(default)s)")
    arguments = parser.parse_args()
    path = arguments.results / "load-sweep.json"
    if not path.is_file():
        parser.error(f"there is no {path}; run `make load-sweep` on the GPU first")
    result = json.loads(path.read_text())
    try:
        one = pace(result["series"]["runs"], arguments.measure, arguments.target_seconds)
    except ValueError as error:
        parser.error(str(error))
    device = result["machine"]["gpu"] or result["machine"]["processor"]
    print(
        f"measured on {device}: {one.requests_per_second:.2f} requests/s"
        f" within {arguments.target_seconds:g} s ({arguments.measure}, p95), {one.at_once:.1f} at once\n"
        f"for {arguments.rate:g} requests/s of {arguments.context:,} tokens, {arguments.headroom:.0%} kept:\n"
    )
    print(table(one, arguments.rate, arguments.context, arguments.headroom))
    return 0


if __name__ == "__main__":
    sys.exit(main())
