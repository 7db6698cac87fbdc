"""`make soak`: thousands of requests of mixed kinds; memory, handles, shared memory, threads, KV blocks and latency."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from build.assemble.checkpoint_factory import SHAPES
from build.serve.deployment import end_on_signals
from perf.load.readings.trend import Trend, trend
from perf.load.readings.watch import WORKERS, Sample, sample
from perf.load.traffic import target
from perf.load.traffic.driver import ANSWERED, Outcome, closed_loop
from perf.load.traffic.workload import Request, mixed
from perf.support import report
from qwen3_vl_client import AsyncClient
from tests.support.serving import Server

SETTINGS = {"decoder.kv_cache_tokens": "8192"}
"""A cache that soon is full: until then its memory grows, a page at a time."""

SETTLED = 0.2
"""The share of the requests after which the server is as it was before the pause."""
GROWTH_PERCENT = 1.0
SETTLE_SECONDS = 10.0
SAMPLE_SECONDS = 0.5
EXPECTED = {"rubbish": "invalid_argument", "leaves": "left"}
"""How a request of a kind ends; all others are answered."""


async def soak(server: Server, requests: int, concurrency: int) -> tuple[list[Outcome], list[Sample]]:
    """As many requests to warm up, and then the outcomes and samples from before the first request to after the last.
    Ctrl-C ends it early."""
    outcomes: list[Outcome] = []
    began = time.monotonic()

    def look() -> Sample:
        return sample(server, time.monotonic() - began, len(outcomes))

    async def watch() -> list[Sample]:
        samples = []
        while True:
            try:
                samples.append(await asyncio.to_thread(look))
                await asyncio.sleep(SAMPLE_SECONDS)
            except asyncio.CancelledError:
                return samples

    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)

    def asked(seed: int) -> Iterator[Request]:
        return itertools.takewhile(lambda _: not interrupted.is_set(), itertools.islice(mixed(seed), requests))

    async with AsyncClient(server.grpc_url) as client:
        await closed_loop(client, asked(1), concurrency, outcomes.append, began=began)
        outcomes.clear()
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.monotonic()
        first = look()
        watching = asyncio.create_task(watch())
        await closed_loop(client, asked(0), concurrency, outcomes.append, began=began)
        watching.cancel()
        samples = [first, *await watching]
        await asyncio.sleep(SETTLE_SECONDS)
        return outcomes, [*samples, look()]


def growth(samples: Sequence[Sample], requests: int, value: Callable[[Sample], float]) -> Trend:
    """The trend of what `value` takes of the samples under load, its beginning left out."""
    settled = [one for one in samples[1:-1] if one.requests >= SETTLED * requests]
    return trend([one.requests for one in settled], [value(one) for one in settled])


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--requests", type=int, default=5000, help="after as many to warm up (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=8)
    arguments = parser.parse_args()
    end_on_signals()
    with target.own(arguments.model, SETTINGS, shape=SHAPES["small"]) as server:
        outcomes, samples = asyncio.run(soak(server, arguments.requests, arguments.concurrency))
        heals = sum(server.heals().values())

    first, last = samples[0], samples[-1]
    rows: list[tuple[object, ...]] = []
    figures: list[report.Figure] = []

    def watch(name: str, unit: str, value: Callable[[Sample], float]) -> None:
        found = growth(samples, len(outcomes), value)
        interval = f"{found.percent:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
        rows.append((name, unit, value(first), max(value(one) for one in samples), value(last), interval))
        figures.append(
            report.Figure(f"{name}: growth per 1,000 requests", found.distinguishable, "%", at_most=GROWTH_PERCENT)
        )

    for process in first.processes:
        watch(f"memory of {process}", "MiB", lambda one, name=process: one.processes[name].memory_mib)  # type: ignore[misc]
    watch("shared memory", "MiB", lambda one: one.shared_memory_mib)

    # Idle workers are kept for the next request, one more or less.
    def total(one: Sample, kind: str) -> int:
        return sum(getattr(holding, kind) for name, holding in one.processes.items() if name != WORKERS)

    # Triton's pool of threads grows and shrinks by one or two.
    watch("threads", "", lambda one: total(one, "threads"))
    before, after = total(first, "handles"), total(last, "handles")
    rows.append(("handles", "", before, "", after, ""))
    figures.append(report.Figure("handles that were not given back", after - before, "", at_most=0))
    rows.append(
        ("KV blocks held", "", first.blocks_held, max(one.blocks_held for one in samples), last.blocks_held, "")
    )
    figures.append(report.Figure("KV blocks that were not given back", last.blocks_held, "", at_most=0))
    videos = [one for one in outcomes if one.kind == "video" and one.result == ANSWERED]
    videos = videos[int(SETTLED * len(videos)) :]
    slope = trend([one.ended for one in videos], [one.seconds for one in videos])
    per_request = len(outcomes) / last.seconds
    slope = Trend(slope.percent / per_request, slope.low / per_request, slope.high / per_request)
    rows.append(
        (
            "time of a video request",
            "s",
            videos[0].seconds,
            max(one.seconds for one in videos),
            videos[-1].seconds,
            f"{slope.percent:+.2f} ({slope.low:+.2f} to {slope.high:+.2f})",
        )
    )
    figures.append(
        report.Figure("video requests get slower per 1,000", slope.distinguishable, "%", at_most=GROWTH_PERCENT)
    )
    unexpected = Counter(
        f"{one.kind}: {one.result}" for one in outcomes if one.result != EXPECTED.get(one.kind, ANSWERED)
    )
    figures += [
        report.Figure("requests that ended otherwise than they should", sum(unexpected.values()), "", at_most=0),
        report.Figure("stages or servers that had to be restarted", heals, "", at_most=0),
    ]
    report.finish(
        "load-soak",
        workload={
            "requests": len(outcomes),
            "concurrency": arguments.concurrency,
            "kinds": dict(Counter(one.kind for one in outcomes)),
            "method": "Theil-Sen slope of the medians of 20 blocks after the first fifth; 95 % interval",
        },
        columns=("what", "unit", "before", "highest", "after", "% per 1,000 requests"),
        rows=rows,
        figures=figures,
        series={"samples": [asdict(one) for one in samples], "unexpected": dict(unexpected)},
        folder=arguments.results,
    )


if __name__ == "__main__":
    main()
