"""`make overload`: many times what the server can do is offered: who is refused, how soon, and what the others get."""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass

import report
from qwen3_vl_client import AsyncClient
from server.deployment import end_on_signals
from serving import Server

from load import target
from load.driver import ANSWERED, Outcome, answers_per_second, ask, closed_loop, for_seconds, open_loop
from load.workload import texts

SETTINGS = {
    "decoder.max_batch": "8",
    # Room for eight requests at once; four more may wait: who is let in is answered within seconds.
    "decoder.kv_cache_tokens": "1152",
    "decoder.max_waiting": "4",
}
TOKENS = 80
"""Of each answer; with its prompt at most an eighth of the cache."""
CONCURRENCIES = (8, 12)
REFUSED_SECONDS = 1.0
RECOVERY_SECONDS = 10.0
THROUGHPUT_PERCENT = 90.0
_COME_BACK = re.compile(r"retry in \d+ s$")


@dataclass(frozen=True)
class Run:
    """best: answers per second at the best concurrency. recovery: seconds from the last arrival that was offered until
    a new request was answered as fast as on an idle server, or twice that."""

    best: float
    offered: float
    outcomes: list[Outcome]
    seconds: float
    recovery: float


async def overload(server: Server, factor: float, seconds: float) -> Run:
    began = time.monotonic()
    requests = texts(TOKENS)
    async with AsyncClient(server.grpc_url) as client:
        warm_up = [await ask(client, next(requests), began) for _ in range(3)]
        idle = min(one.seconds for one in warm_up)
        best = 0.0
        for concurrency in CONCURRENCIES:
            outcomes: list[Outcome] = []
            timed = for_seconds(requests, seconds / 2)
            await closed_loop(client, timed, concurrency, outcomes.append, began=began)
            best = max(best, answers_per_second(outcomes))
        start = time.monotonic()
        offered = factor * best
        outcomes = await open_loop(client, requests, offered, seconds, began=start)
        end = start + seconds
        while (await ask(client, next(requests), began)).seconds > 2 * idle:
            pass
        return Run(best, offered, outcomes, seconds, max(0.0, time.monotonic() - end))


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
    rate = answers_per_second(answered)
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
            report.Figure("answered by the best throughput", 100 * rate / run.best, "%", at_least=THROUGHPUT_PERCENT),
            report.Figure("recovery after the end", run.recovery, "s", at_most=RECOVERY_SECONDS),
            report.Figure("stages or servers that had to be restarted", heals, "", at_most=0),
        ],
        series={
            "best": run.best,
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
