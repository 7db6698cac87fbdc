"""`make overload`: many times what the server can do is offered: who is refused, how soon, and what the others get."""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from build.serve.deployment import end_on_signals
from perf.load.readings.metrics import parse_decoded_tokens, read_metrics
from perf.load.traffic import target
from perf.load.traffic.driver import ANSWERED, Outcome, ask, closed_loop, for_seconds, open_loop
from perf.load.traffic.workload import texts
from perf.support import report
from qwen3_vl_client import AsyncClient
from tests.support.serving import Server

SETTINGS = {
    # One core decodes, the other one admits and refuses. A step that both compute waits for the one that was disturbed.
    "decoder.threads": "1",
    # Room for four requests at once; one more may wait: who is let in is answered within seconds. Stage 1 refuses the
    # others: nothing is cheaper.
    "decoder.max_batch": "4",
    "decoder.kv_cache_tokens": "768",
    "decoder.max_waiting": "1",
    "video_preprocess.max_requests": "5",
}
TOKENS = 128
"""Tokens of each answer; with its prompt it takes at most a quarter of the cache."""
PROBE_TOKENS = 8
CONCURRENCIES = (4, 5)
SETTLING_SECONDS = 2.0
PAUSE_SECONDS = 0.1
REFUSED_SECONDS = 1.0
RECOVERY_SECONDS = 10.0
THROUGHPUT_PERCENT = 90.0
_COME_BACK = re.compile(r"retry in \d+ s$")


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Run:
    """best: answers per second at the best concurrency; rate: while more is offered. recovery: seconds from the last
    arrival that was offered until a new, short request was answered as fast as on an idle server, or twice that."""

    best: float
    rate: float
    offered: float
    outcomes: list[Outcome]
    seconds: float
    recovery: float


async def overload(server: Server, factor: float, seconds: float) -> Run:
    began = time.monotonic()
    requests = texts(TOKENS)
    async with AsyncClient(server.grpc_url) as client:
        probes = texts(PROBE_TOKENS)
        idle = min([(await ask(client, next(probes), began)).seconds for _ in range(3)])
        best = 0.0
        for concurrency in CONCURRENCIES:
            timed = for_seconds(requests, seconds / 2)
            loop = closed_loop(client, timed, concurrency, lambda outcome: None, began=began)
            _, rate = await _answers_per_second(server, loop, seconds / 2)
            best = max(best, rate)
        start = time.monotonic()
        offered = factor * best
        flood = open_loop(client, requests, offered, seconds, began=start)
        outcomes, rate = await _answers_per_second(server, flood, seconds)
        end = start + seconds
        while not _as_when_idle(await ask(client, next(probes), began), idle):
            await asyncio.sleep(PAUSE_SECONDS)
        return Run(best, rate, offered, outcomes, seconds, max(0.0, time.monotonic() - end))


async def _answers_per_second(server: Server, load: Awaitable[Answer], seconds: float) -> tuple[Answer, float]:
    """The load's result, and the answers per second while it lasts, without its beginning and its end: by the tokens
    that the server counts, for the answers themselves come in bunches."""
    running = asyncio.ensure_future(load)
    await asyncio.sleep(SETTLING_SECONDS)
    before, began = parse_decoded_tokens(read_metrics(server.metrics_url)), time.monotonic()
    await asyncio.sleep(seconds - SETTLING_SECONDS)
    tokens = parse_decoded_tokens(read_metrics(server.metrics_url)) - before
    rate = tokens / TOKENS / (time.monotonic() - began)
    return await running, rate


def _as_when_idle(probe: Outcome, idle: float) -> bool:
    return probe.result == ANSWERED and probe.seconds <= 2 * idle


def main() -> None:
    parser = argparse.ArgumentParser(prog="make overload", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--factor", type=float, default=20.0, help="offered load by capacity (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long it is offered (default: %(default)s)")
    arguments = parser.parse_args()
    end_on_signals()
    with target.own(arguments.model, SETTINGS, shape=target.HEAVY) as server:
        run = asyncio.run(overload(server, arguments.factor, arguments.seconds))
        heals = sum(server.heals().values())
    answered = [one for one in run.outcomes if one.result == ANSWERED]
    refused = [one for one in run.outcomes if one.result == "resource_exhausted"]
    others = Counter(one.result for one in run.outcomes if one not in answered and one not in refused)
    untold = [one for one in refused if not _COME_BACK.search(one.message)]
    refusals = sorted(one.seconds for one in refused)
    report.finish(
        "load-overload",
        workload={"factor": arguments.factor, "seconds": run.seconds, "tokens": TOKENS, "settings": SETTINGS},
        columns=("requests", "number", "per second", "median seconds", "longest seconds"),
        rows=[
            (name, len(found), len(found) / run.seconds, *_middle_and_longest([one.seconds for one in found]))
            for name, found in (("offered", run.outcomes), ("answered", answered), ("refused", refused))
        ],
        figures=[
            report.Figure("offered by capacity", run.offered / run.best, "×", at_least=arguments.factor),
            report.Figure("longest time to a refusal", refusals[-1] if refusals else 0.0, "s", at_most=REFUSED_SECONDS),
            report.Figure("refusals that do not say when to come back", len(untold), "", at_most=0),
            report.Figure("neither answered nor refused", sum(others.values()), "", at_most=0),
            report.Figure(
                "answered by the best throughput", 100 * run.rate / run.best, "%", at_least=THROUGHPUT_PERCENT
            ),
            report.Figure("recovery after the end", run.recovery, "s", at_most=RECOVERY_SECONDS),
            report.Figure("stages or servers that had to be restarted", heals, "", at_most=0),
        ],
        series={
            "best": run.best,
            "rate": run.rate,
            "offered": run.offered,
            "outcomes": [(round(one.ended, 3), round(one.seconds, 3), one.result) for one in run.outcomes],
            "others": dict(others),
        },
        folder=arguments.results,
    )


def _middle_and_longest(seconds: list[float]) -> tuple[float, float]:
    ordered = sorted(seconds) or [0.0]
    return ordered[len(ordered) // 2], ordered[-1]


if __name__ == "__main__":
    main()
