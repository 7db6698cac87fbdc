"""Clients that go away before they have their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import anyio
from starlette.requests import Request

Result = TypeVar("Result")

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for such a request. Nobody reads it but those who count."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Does the work, unless the client goes away meanwhile: then the work is cancelled.

    Raises:
        ClientGoneError: it went away.
    """
    # A scope cancels until the work has ended; a task's cancellation may be lost in Python 3.11's `wait_for`.
    with anyio.CancelScope() as scope:
        watching = asyncio.create_task(_cancel_when_gone(request, scope))
        try:
            return await work
        finally:
            watching.cancel()
    raise ClientGoneError


async def _cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    # The body has been read: what is left to come is the end of the connection.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
