"""Sends requests at a concurrency or at a rate, and notes how each one ended."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from perf.load.traffic.workload import Request
from qwen3_vl_client import AsyncClient, Qwen3VLError, TextDelta

ANSWERED = "answered"
LEFT = "left"


@dataclass(frozen=True)
class Outcome:
    """How a request ended: `result` is `answered`, `left` (its user went away) or an error's code.

    `started` and all `…seconds` are seconds, `started` since the run's beginning. `stage_seconds` is the server's own
    account, by dotted name (`preprocess.decode`).
    """

    kind: str
    started: float
    seconds: float
    result: str
    message: str = ""
    first_text_seconds: float | None = None
    completion_tokens: int = 0
    stage_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> float:
        return self.started + self.seconds


Listener = Callable[[Outcome], None]


async def ask(client: AsyncClient, request: Request, began: float) -> Outcome:
    """Sends one request and reads its answer. `began`: the run's beginning on the monotonic clock."""
    started = time.monotonic()
    first_text: float | None = None
    try:
        async with client.stream(
            request.video, request.question, image=request.image, sampling=request.sampling
        ) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    first_text = first_text or time.monotonic() - started
                    if request.leaves:
                        break
            if request.leaves and first_text is not None:
                await stream.close()
                return Outcome(request.kind, started - began, time.monotonic() - started, LEFT)
            answer = await stream.result()
    except Qwen3VLError as error:
        return Outcome(request.kind, started - began, time.monotonic() - started, error.code, error.message)
    return Outcome(
        request.kind,
        started - began,
        time.monotonic() - started,
        ANSWERED,
        first_text_seconds=first_text,
        completion_tokens=answer.usage.completion_tokens,
        stage_seconds=answer.usage.seconds or {},
    )


async def closed_loop(
    client: AsyncClient,
    requests: Iterator[Request],
    concurrency: int,
    listener: Listener,
    *,
    began: float,
    pause_after_error_seconds: float = 0.0,
) -> None:
    """`concurrency` users, each sending its next request when the one before has ended, until `requests` ends."""

    async def user() -> None:
        for request in requests:
            outcome = await ask(client, request, began)
            listener(outcome)
            if outcome.result not in (ANSWERED, LEFT):
                await asyncio.sleep(pause_after_error_seconds)

    await asyncio.gather(*(user() for _ in range(concurrency)))


async def open_loop(
    client: AsyncClient,
    requests: Iterator[Request],
    rate: float,
    seconds: float,
    *,
    began: float,
    seed: int = 0,
) -> list[Outcome]:
    """Poisson arrivals, `rate` a second for so long, whatever becomes of the ones before; returns when all have ended.

    Who is late with sending catches up: the offered rate holds on average.
    """
    rng = random.Random(seed)
    sent: list[asyncio.Task[Outcome]] = []
    start = due = time.monotonic()
    while (due := due + rng.expovariate(rate)) < start + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        sent.append(asyncio.create_task(ask(client, next(requests), began)))
    return list(await asyncio.gather(*sent))


def for_seconds(requests: Iterator[Request], seconds: float) -> Iterator[Request]:
    """The requests, until that time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield next(requests)


def tokens_per_second(outcomes: Sequence[Outcome]) -> float:
    """Tokens of the answers by the time from the first request to the last answer."""
    seconds = max(outcome.ended for outcome in outcomes) - min(outcome.started for outcome in outcomes)
    return sum(outcome.completion_tokens for outcome in outcomes) / seconds
