"""All connections of a server: their bounds, what each is at, and which is closed for another."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

_log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Bounds:
    """Sizes are bytes, times seconds."""

    connections: int = 512
    """At the same time. One more closes one of the largest crowd: of those whose head is not complete, those whose
    request nobody reads any more, those that are idle and those that sent the next request before they had an answer,
    the oldest; of those that send a body or read their answer slowly, the slowest. Without any, it is closed itself."""
    head_seconds: float = 10.0
    """From a connection's begin, or a head's, to the head's end."""
    head_bytes: int = 16 * 1024
    idle_seconds: float = 5.0
    """Between two requests."""
    body_seconds: float = 30.0
    """So far may a body be behind `body_rate` while it is waited for."""
    reading_seconds: float = 60.0
    """So far may a client be behind `reading_rate` while it has something to read."""
    drain_seconds: float = 10.0
    """How long the rest of a request is passed over that was answered already."""
    drain_bytes: int = 64 * 2**20
    """How much of it."""
    body_rate: int = 16 * 1024
    """Bytes per second."""
    reading_rate: int = 4 * 1024
    """Bytes per second."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value}; a number above 0 is accepted")


class Phase(Enum):
    """The phase of a connection."""

    HEAD = auto()
    """A head is waited for, or the rest of it."""
    IDLE = auto()
    """It was answered; the next request is waited for. uvicorn bounds that."""
    BODY = auto()
    """A body is waited for, or the rest of it."""
    BUSY = auto()
    """The request is complete, its response is not."""
    AHEAD = auto()
    """The same, and the next request has begun to come."""
    DRAIN = auto()
    """The response is complete, its request is not."""


class Connection(Protocol):
    """One of them, as it is looked after."""

    def look(self, now: float) -> None:
        """Ends what takes too long."""

    def rate(self) -> float | None:
        """Bytes per second at which the client sends a body or reads its answer; None if it does neither, or has only
        begun."""

    def is_unread(self) -> bool:
        """Whether there is something for the client to read that it does not take."""

    def go_on(self) -> None:
        """The response is complete; the next request may begin."""

    def abort(self) -> None:
        """Closes the connection at once, without a word."""


class Connections:
    """All connections of a server, and the clock that looks after them."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._open: dict[Connection, Phase] = {}
        # Those that may be closed for another, the oldest first.
        self._closable: dict[Phase, dict[Connection, None]] = {
            phase: {} for phase in (Phase.HEAD, Phase.DRAIN, Phase.IDLE, Phase.AHEAD)
        }
        # So may these, the slowest last, as of the last look.
        self._slow: list[Connection] = []
        # Those that sent the next request before they had an answer: one goes on before all else has its turn again.
        self._ahead: deque[Connection] = deque()
        self.look_seconds = min(1.0, bounds.head_seconds / 4, bounds.body_seconds / 4, bounds.reading_seconds / 4)
        self._looking = False

    def admit(self, connection: Connection) -> bool:
        """Makes room for a new connection, or closes it."""
        if len(self._open) >= self.bounds.connections:
            least = self._least() or connection
            _log.warning(
                "more than %d connections: one that asks nothing, or slowly, is closed", self.bounds.connections
            )
            self.remove(least)
            least.abort()
            if least is connection:
                return False
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(self.look_seconds, self._look)
        return True

    def _least(self) -> Connection | None:
        """The one that is closed for another, if any may be."""
        # A flood is the largest crowd; a client that has just come and says what it wants is not its oldest.
        crowd = max(self._closable.values(), key=len)
        while self._slow and len(self._slow) >= len(crowd):
            slowest = self._slow.pop()
            if slowest in self._open and slowest.rate() is not None:
                return slowest
        return next(iter(crowd), None) or next((each for each in self._open if each.is_unread()), None)

    def move(self, connection: Connection, phase: Phase) -> None:
        """It is the newest of those in that phase."""
        self.remove(connection)
        self._open[connection] = phase
        if phase in self._closable:
            self._closable[phase][connection] = None

    def remove(self, connection: Connection) -> None:
        """It is closed, or about to be."""
        before = self._open.pop(connection, None)
        if before in self._closable:
            del self._closable[before][connection]

    def go_on_later(self, connection: Connection) -> None:
        """Lets it begin its next request when those that came before have begun theirs."""
        if not self._ahead:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._ahead.append(connection)

    def _go_on(self) -> None:
        connection = self._ahead.popleft()
        if self._ahead:
            asyncio.get_running_loop().call_soon(self._go_on)
        connection.go_on()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in list(self._open):
            connection.look(loop.time())
        rates = {each: rate for each in self._open if (rate := each.rate()) is not None}
        self._slow = sorted(rates, key=rates.__getitem__, reverse=True)
        self._looking = bool(self._open)
        if self._looking:
            loop.call_later(self.look_seconds, self._look)
