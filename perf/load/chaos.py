"""`make chaos`: under load, stages are killed at random again and again; how requests end, and how soon it is over."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from build.serve.deployment import end_on_signals
from build.serve.server.triton import STAGES
from build.serve.supervisor.supervisor import Limits
from perf.load.traffic import target
from perf.load.traffic.driver import ANSWERED, Outcome, closed_loop, for_seconds
from perf.load.traffic.workload import Request, mixed
from perf.support import report
from perf.support.setup import DEMO_SHAPE
from qwen3_vl_client import AsyncClient, Timeouts
from tests.support.serving import Server

LIMITS = Limits(max_backoff_seconds=1)
"""The supervisor lets a stage that keeps dying rest for longer and longer. Here it is killed on purpose: no rest."""

REQUEST_SECONDS = 30.0
RECOVERY_SECONDS = 5.0
PAUSE_SECONDS = 0.1
KINDS = ("video", "image", "text")


@dataclass(frozen=True)
class Kill:
    """Seconds since the run's beginning; `recovered`: when a request that came after the kill was answered."""

    stage: str
    seconds: float
    recovered: float

    @property
    def recovery(self) -> float:
        return self.recovered - self.seconds


async def chaos(server: Server, kills: int, calm_seconds: float, concurrency: int) -> tuple[list[Kill], list[Outcome]]:
    """Kills each stage in turn, in random order; the next `calm_seconds` after the one before is over."""
    outcomes: list[Outcome] = []
    began = time.monotonic()
    order = [stage for _ in range(kills) for stage in STAGES]
    random.Random(0).shuffle(order)
    asked = (request for request in mixed() if request.kind in KINDS)
    stopping = asyncio.Event()

    async def kill_all() -> list[Kill]:
        done = []
        try:
            for stage in order:
                await asyncio.sleep(calm_seconds)
                os.kill(server.pids()[stage], signal.SIGKILL)
                done.append(await _recovery(server, stage, time.monotonic() - began, outcomes, began))
            await asyncio.sleep(calm_seconds)
        finally:
            stopping.set()
        return done

    def until_stopped() -> Iterator[Request]:
        while not stopping.is_set():
            yield next(asked)

    timeouts = Timeouts(total=REQUEST_SECONDS)
    async with AsyncClient(server.grpc_url, timeouts=timeouts) as client:
        await closed_loop(client, for_seconds(asked, calm_seconds), concurrency, lambda outcome: None, began=began)
        killing = asyncio.create_task(kill_all())
        await closed_loop(
            client,
            until_stopped(),
            concurrency,
            outcomes.append,
            began=began,
            pause_after_error_seconds=PAUSE_SECONDS,
        )
        return await killing, outcomes


async def _recovery(server: Server, stage: str, killed: float, outcomes: list[Outcome], began: float) -> Kill:
    while True:
        after = [one.ended for one in outcomes if one.started > killed and one.result == ANSWERED]
        if after:
            return Kill(stage, killed, min(after))
        if time.monotonic() - began > killed + 4 * REQUEST_SECONDS:
            ended = Counter(f"{one.result}: {one.message}" for one in outcomes[-50:])
            raise TimeoutError(
                f"nothing was answered for {4 * REQUEST_SECONDS:g} s after {stage} was killed; the last requests ended"
                f" with {ended.most_common(3)}; the supervisor said {server.reports[-5:]}; {server.log()[-2000:]}"
            )
        await asyncio.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--kills", type=int, default=7, help="of each stage (default: %(default)s)")
    parser.add_argument("--calm-seconds", type=float, default=4.0, help="between two kills (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=8)
    arguments = parser.parse_args()
    end_on_signals()
    with target.own(arguments.model, {"decoder.kv_cache_tokens": "32768"}, limits=LIMITS) as server:
        kills, outcomes = asyncio.run(chaos(server, arguments.kills, arguments.calm_seconds, arguments.concurrency))
        restarts = server.heals()["triton"]

    def broken(one: Outcome) -> bool:
        """Whether it ran while something was broken: it may end with an error."""
        return any(one.started < kill.recovered and one.ended > kill.seconds for kill in kills)

    recoveries = {stage: [kill.recovery for kill in kills if kill.stage == stage] for stage in STAGES}
    everything = [kill.recovery for kill in kills]
    failed = [one for one in outcomes if one.result != ANSWERED]
    report.finish(
        "load-chaos",
        workload={
            "kills": arguments.kills,
            "calm_seconds": arguments.calm_seconds,
            "concurrency": arguments.concurrency,
            "checkpoint": str(arguments.model or DEMO_SHAPE),
            "supervisor": str(LIMITS),
        },
        columns=("stage", "kills", "median seconds", "p95", "longest"),
        rows=[
            (stage, len(found), float(np.median(found)), float(np.percentile(found, 95)), max(found))
            for stage, found in {**recoveries, "all": everything}.items()
        ],
        figures=[
            report.Figure("time to recover, p95", float(np.percentile(everything, 95)), "s", at_most=RECOVERY_SECONDS),
            report.Figure(
                "longest request that ended with an error",
                max((one.seconds for one in failed), default=0.0),
                "s",
                at_most=REQUEST_SECONDS,
            ),
            report.Figure(
                "requests that ran into their time limit",
                sum(one.result == "deadline_exceeded" for one in outcomes),
                "",
                at_most=0,
            ),
            report.Figure(
                "requests that failed while nothing was broken", sum(not broken(one) for one in failed), "", at_most=0
            ),
            report.Figure("restarts of the whole server", restarts, "", at_most=0),
        ],
        series={
            "kills": [(kill.stage, kill.seconds, kill.recovery) for kill in kills],
            "outcomes": [(round(one.ended, 3), round(one.seconds, 3), one.result) for one in outcomes],
            "errors": dict(Counter(one.result for one in failed)),
        },
        folder=arguments.results,
    )


if __name__ == "__main__":
    main()
