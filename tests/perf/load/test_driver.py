"""How load is sent, against a client that answers by itself."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType

import pytest

from perf.load.traffic import driver
from perf.load.traffic.driver import Outcome
from perf.load.traffic.workload import Request, greedy
from qwen3_vl_client import Answer, ResourceExhausted, TextDelta, Timings, Usage

ANSWER = Answer("ab", "length", Usage(completion_tokens=2, seconds={"decoder.prefill": 0.1}), Timings(), "id")


class FakeStream:
    def __init__(self, client: "FakeClient", question: str) -> None:
        self._client = client
        self._question = question
        self._left = False

    async def __aenter__(self) -> "FakeStream":
        self._client.running += 1
        self._client.most = max(self._client.most, self._client.running)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.running -= 1

    async def __aiter__(self) -> AsyncIterator[TextDelta]:
        await asyncio.sleep(self._client.seconds)
        if self._question == "full":
            raise ResourceExhausted("full; retry in 3 s")
        yield TextDelta("a")
        yield TextDelta("b")

    async def close(self) -> None:
        self._client.closed += 1

    async def result(self) -> Answer:
        return ANSWER


class FakeClient:
    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.running = self.most = self.closed = 0

    def stream(self, video: object, question: str, **_: object) -> FakeStream:
        return FakeStream(self, question)


def ask(client: FakeClient, request: Request) -> Outcome:
    return asyncio.run(driver.ask(client, request, time.monotonic()))  # type: ignore[arg-type]


def test_an_answer_is_noted_with_its_first_text_and_stages() -> None:
    outcome = ask(FakeClient(0.01), Request("text", "?", sampling=greedy(2)))
    assert outcome.result == driver.ANSWERED
    assert outcome.first_text_seconds is not None
    assert 0.01 <= outcome.first_text_seconds <= outcome.seconds
    assert (outcome.completion_tokens, outcome.stage_seconds) == (2, {"decoder.prefill": 0.1})


def test_a_refusal_is_noted_with_its_reason() -> None:
    outcome = ask(FakeClient(), Request("text", "full"))
    assert (outcome.result, outcome.message) == ("resource_exhausted", "full; retry in 3 s")


def test_who_leaves_closes_the_stream() -> None:
    client = FakeClient()
    assert ask(client, Request("leaves", "?", leaves=True)).result == driver.LEFT
    assert client.closed == 1


def test_a_closed_loop_keeps_its_concurrency() -> None:
    client, outcomes = FakeClient(0.002), []
    requests = itertools.repeat(Request("text", "?"), 20)
    loop = driver.closed_loop(client, requests, 4, outcomes.append, began=time.monotonic())  # type: ignore[arg-type]
    asyncio.run(loop)
    assert len(outcomes) == 20
    assert client.most == 4


def test_an_open_loop_waits_for_nobody() -> None:
    def endless() -> Iterator[Request]:
        while True:
            yield Request("text", "?")

    client = FakeClient(0.3)
    loop = driver.open_loop(client, endless(), 200, 0.2, began=time.monotonic())  # type: ignore[arg-type]
    outcomes = asyncio.run(loop)
    # 40 on average; nobody has ended before the last is sent.
    assert 20 < len(outcomes) < 65
    assert client.most == len(outcomes)


def test_the_rate_is_from_the_first_request_to_the_last_answer() -> None:
    outcomes = [
        Outcome("text", 0.0, 1.0, driver.ANSWERED, completion_tokens=10),
        Outcome("text", 1.0, 3.0, driver.ANSWERED, completion_tokens=10),
        Outcome("text", 0.5, 0.1, "resource_exhausted"),
    ]
    assert driver.tokens_per_second(outcomes) == pytest.approx(5)
