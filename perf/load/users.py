"""`make load-users`: locust, headless: a ramp and steady load of users who behave like users."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build.serve.deployment import end_on_signals
from perf.load.readings.metrics import Counters, read_counters
from perf.load.traffic import target
from perf.load.traffic.target import CACHE, Target
from perf.load.traffic.workload import video_files
from perf.support import report

MIXED, STEADY = (Path(__file__).parent / "traffic" / name for name in ("locustfile.py", "steady.py"))
AGREEMENT_PERCENT = 5.0
FIRST_WORD = ", first word"


@dataclass(frozen=True)
class Row:
    """Locust's figures for one kind of request; times in seconds."""

    name: str
    requests: int
    failures: int
    per_second: float
    mean: float
    percentiles: Mapping[str, float]


def read_result(path: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Reads what the locustfile wrote: kinds of requests, and kinds of failures with how often each occurred."""
    result = json.loads(path.read_text())
    return [Row(**row) for row in result["requests"]], result["failures"]


def locust(
    served: Target, users: Path, count: int, rate: float, seconds: int, tokens: int
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Runs locust; what it writes is in the cache's folder `locust`. `users`: the locustfile."""
    folder = CACHE / "locust"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / users.stem
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", users, "--headless", "--only-summary"),
        *("--host", served.http, "--users", str(count), "--spawn-rate", str(rate), "--run-time", f"{seconds}s"),
        # Requests that are under way at the end are read to their end: Triton counts them too.
        *("--stop-timeout", "60", "--csv", prefix, "--html", prefix.with_suffix(".html"), "--exit-code-on-error", "0"),
    ]
    result = prefix.with_suffix(".json")
    result.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "QWEN3_VL_URL": served.grpc,
        "STEADY_TOKENS": str(tokens),
        "LOAD_RESULT": str(result),
    }
    subprocess.run([str(part) for part in command], env=environment, check=True)
    return read_result(result)


def counted(served: Target, before: Counters) -> tuple[int, float]:
    """Requests that ended at the server since, refused ones too, and their mean seconds."""
    now = read_counters(served.metrics) - before
    return now.succeeded() + now.failed(), now.mean_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(prog="make load-users", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument(
        "--attach",
        help="a host whose server on Triton's default ports is asked; its media root must be .cache/load/media",
    )
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--spawn-rate", type=float, default=1.0, help="users a second (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=90)
    parser.add_argument("--steady-users", type=int, default=4)
    parser.add_argument("--steady-seconds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32, help="of a steady user's answers (default: %(default)s)")
    arguments = parser.parse_args()
    end_on_signals()
    settings = {"video_preprocess.media_root": str(video_files()[0].parent)}
    with target.attached_or_own(arguments.attach, arguments.model, settings) as served:
        before = read_counters(served.metrics)
        rows, failures = locust(
            served, MIXED, arguments.users, arguments.spawn_rate, arguments.seconds, arguments.tokens
        )
        mixed_served, _mean = counted(served, before)
    with target.attached_or_own(arguments.attach, arguments.model, {"decoder.prefix_cache": "false"}) as served:
        before = read_counters(served.metrics)
        users = arguments.steady_users
        steady_rows, _failures = locust(served, STEADY, users, users, arguments.steady_seconds, arguments.tokens)
        (steady,) = [row for row in steady_rows if not row.name.endswith(FIRST_WORD)]
        steady_served, steady_mean = counted(served, before)
    mixed = sum(row.requests for row in rows if not row.name.endswith(FIRST_WORD))
    report.finish(
        "load-users",
        workload={name: str(value) for name, value in vars(arguments).items() if name != "results"},
        columns=("request", "requests", "failures", "per second", "p50", "p90", "p95", "p99"),
        rows=[
            (row.name, row.requests, row.failures, row.per_second, *row.percentiles.values()) for row in [*rows, steady]
        ],
        figures=[
            report.Figure("failed requests", sum(row.failures for row in [*rows, steady]), "", at_most=0),
            report.Figure(
                "mixed requests: locust and Triton's metrics differ by",
                100 * abs(mixed / mixed_served - 1),
                "%",
                at_most=AGREEMENT_PERCENT,
            ),
            report.Figure(
                "steady requests: locust and Triton's metrics differ by",
                100 * abs(steady.requests / steady_served - 1),
                "%",
                at_most=AGREEMENT_PERCENT,
            ),
            report.Figure(
                "mean time of steady requests: locust and Triton's metrics differ by",
                100 * abs(steady.mean / steady_mean - 1),
                "%",
                at_most=AGREEMENT_PERCENT,
            ),
        ],
        series={
            "failures": failures,
            "steady": {"users": arguments.steady_users, "per_second": steady.per_second, "mean_seconds": steady.mean},
        },
        folder=arguments.results,
    )


if __name__ == "__main__":
    main()
