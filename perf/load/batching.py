"""`make load-batching`: long answers about a short video, one at a time and more: what in-flight batching gives."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict

from build.serve.deployment import end_on_signals
from perf.load.traffic import target
from perf.load.traffic.driver import ANSWERED, Outcome, closed_loop, tokens_per_second
from perf.load.traffic.workload import QUESTIONS, Request, greedy, video_files
from perf.support import report
from qwen3_vl_client import AsyncClient

SETTINGS = {"decoder.kv_cache_tokens": "16384"}
SPEED_UP = 3.0


def requests(tokens: int) -> Iterator[Request]:
    """The shortest video with ever new questions."""
    video = video_files()[0].read_bytes()
    for number in itertools.count():
        yield Request("video", f"{number}: {QUESTIONS[0]}", video=video, sampling=greedy(tokens))


async def measure(url: str, concurrency: int, tokens: int) -> list[Outcome]:
    """A request of each of the users, at once."""
    outcomes: list[Outcome] = []
    began = time.monotonic()
    async with AsyncClient(url) as client:
        asked = itertools.islice(requests(tokens), concurrency)
        await closed_loop(client, asked, concurrency, outcomes.append, began=began)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="make load-batching", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of them counts (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    arguments = parser.parse_args()
    end_on_signals()
    if not {1, 8} <= set(arguments.concurrency):
        parser.error(f"--concurrency is {arguments.concurrency}; 1 and 8 must be among them, they are compared")
    found: dict[int, list[Outcome]] = {concurrency: [] for concurrency in arguments.concurrency}
    measured: dict[int, list[float]] = {concurrency: [] for concurrency in arguments.concurrency}
    with target.own(arguments.model, SETTINGS, shape=target.HEAVY) as server:
        asyncio.run(measure(server.grpc_url, max(arguments.concurrency), 4))  # warm-up
        # In turn: what else the machine does slows all of them.
        for _ in range(arguments.rounds):
            for concurrency in arguments.concurrency:
                outcomes = asyncio.run(measure(server.grpc_url, concurrency, arguments.tokens))
                found[concurrency] += outcomes
                measured[concurrency].append(tokens_per_second(outcomes))
    rates = {concurrency: statistics.median(values) for concurrency, values in measured.items()}
    rows = [
        (
            concurrency,
            rates[concurrency],
            rates[concurrency] / rates[arguments.concurrency[0]],
            statistics.median(one.first_text_seconds or 0.0 for one in outcomes),
            statistics.median(one.stage_seconds["decoder.generate"] for one in outcomes) / arguments.tokens,
        )
        for concurrency, outcomes in found.items()
    ]
    unanswered = sum(one.result != ANSWERED for outcomes in found.values() for one in outcomes)
    report.finish(
        "load-batching",
        workload={
            "tokens": arguments.tokens,
            "rounds": arguments.rounds,
            "checkpoint": str(arguments.model or asdict(target.HEAVY)),
            "settings": SETTINGS,
        },
        columns=("concurrency", "tokens per second", "by one", "first word, median s", "between tokens, s"),
        rows=rows,
        figures=[
            report.Figure("requests without an answer", unanswered, "", at_most=0),
            report.Figure("throughput at 8 / at 1", rates[8] / rates[1], "×", at_least=SPEED_UP),
        ],
        series={"tokens_per_second": rates},
        folder=arguments.results,
    )


if __name__ == "__main__":
    main()
