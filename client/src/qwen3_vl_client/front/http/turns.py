"""Requests begin a few at a time: what runs already is not kept waiting by however many come at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

_AT_ONCE = 8
"""That begin before all else in the event loop has its turn: some milliseconds."""


class Turns:
    """An ASGI app around another one. For one event loop."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._begun = 0
        """Since all else had its turn."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._turn()
        await self._app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._next)
        if self._begun < _AT_ONCE:
            self._begun += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < _AT_ONCE:
            turn = self._waiting.popleft()
            # One that was cancelled waits no more.
            if not turn.done():
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)
