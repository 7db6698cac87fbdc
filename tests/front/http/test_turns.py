"""However many requests come at once, what runs already goes on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from qwen3_vl_client.front.http.connections import Bounds, Connection, Connections
from qwen3_vl_client.front.http.turns import Turns

HTTP = {"type": "http"}


def test_what_runs_goes_on_while_a_thousand_requests_come() -> None:
    begun = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun
        begun += 1

    async def main() -> int:
        turns = Turns(app)
        requests = [asyncio.create_task(turns(HTTP, None, None)) for _ in range(1000)]
        for _ in range(20):
            # As an answer does, at each of its steps.
            await asyncio.sleep(0)
        at_its_end = begun
        await asyncio.gather(*requests)
        return at_its_end

    assert 20 <= asyncio.run(main()) < 300
    assert begun == 1000


def test_they_begin_in_the_order_in_which_they_came() -> None:
    begun: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["number"])

    async def main() -> None:
        turns = Turns(app)
        requests = [asyncio.create_task(turns({**HTTP, "number": number}, None, None)) for number in range(100)]
        await asyncio.sleep(0)
        # Who goes away takes nobody's turn.
        for request in requests[50:60]:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await turns({**HTTP, "number": 100}, None, None)

    asyncio.run(main())
    assert begun == [*range(50), *range(60, 101)]


class Ahead:
    """A connection with ten more requests."""

    def __init__(self, connections: Connections, begun: list[int]) -> None:
        self._connections = connections
        self._begun = begun
        self._left = 10

    def go_on(self) -> None:
        self._begun.append(id(self))
        self._left -= 1
        if self._left:
            self._connections.go_on_later(cast(Connection, self))


def test_of_requests_ahead_of_their_answers_one_begins_at_a_time() -> None:
    begun: list[int] = []

    async def main() -> None:
        connections = Connections(Bounds())
        for _ in range(100):
            connections.go_on_later(cast(Connection, Ahead(connections, begun)))
        for number in range(1, 1001):
            await asyncio.sleep(0)
            assert len(begun) <= number + 1
        await asyncio.sleep(0)
        # Each in its turn.
        assert len(begun) == 1000
        assert begun[:100] * 10 == begun

    asyncio.run(main())
