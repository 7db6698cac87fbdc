"""How an app is served: uvicorn, with bounds on what one connection, and all of them, may hold.

uvicorn bounds how long a connection may be idle, and how long a head may be. Here are the others: how many connections
there are, how long a head may take, how slowly a body may be sent and a response read. Whoever is refused while still
sending is listened to for a while: closed at once, a connection is reset, and the client never sees why.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from .handles import room_for
from .paces import Pace
from .quiet import quieten
from .turns import Turns

_log = logging.getLogger("uvicorn.error")

_BACKLOG = 128
_YOUNG_SECONDS = 2.0
"""Who has been slow for less is not closed for another."""
_CHUNK_BYTES = 64
_SMALL_CHUNKS = 1000
"""So many chunks of a body may be smaller than that on average."""


@dataclass(frozen=True)
class Bounds:
    """Sizes are bytes, times seconds."""

    connections: int = 512
    """At the same time. One more closes one of the largest crowd: of those whose head is not complete, those whose
    request nobody reads any more, those that are idle and those that sent the next request before they had an answer,
    the oldest; of those that send a body or read their answer slowly, the slowest. Without any, it is closed itself."""
    head_seconds: float = 10.0
    """From a connection's begin, or a head's, to the head's end."""
    head_bytes: int = 64 * 1024
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


def configured(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 0,
    bounds: Bounds | None = None,
    *,
    trusted_proxies: Sequence[str] = (),
    grace_seconds: float = 3.0,
) -> uvicorn.Config:
    """How uvicorn serves the ASGI app; file handles are made available.

    Args:
        trusted_proxies: addresses and networks whose X-Forwarded-For and -Proto are believed.
        grace_seconds: what runs when the server is told to end may take so long to end by itself.
    """
    bounds = bounds or Bounds()
    bounds = replace(bounds, connections=room_for(bounds.connections, _BACKLOG))
    config = uvicorn.Config(
        Turns(app),
        host=host,
        port=port,
        http=cast(Any, functools.partial(BoundedProtocol, connections=Connections(bounds))),
        ws="none",
        loop="asyncio",
        log_level="warning",
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=bounds.head_bytes,
        timeout_keep_alive=cast(int, bounds.idle_seconds),
        timeout_graceful_shutdown=cast(int, grace_seconds),
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        server_header=False,
    )
    quieten("asyncio", _log.name)
    return config


def serve(app: Any, host: str, port: int, bounds: Bounds | None = None, **options: Any) -> None:
    """Serves in the foreground until it is told to end; options are those of `configured`."""
    uvicorn.Server(configured(app, host, port, bounds, **options)).run()


class _Phase(Enum):
    """What a connection is at."""

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


class Connections:
    """All connections of a server, and the clock that looks after them."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._open: dict[BoundedProtocol, _Phase] = {}
        # Those that may be closed for another, the oldest first.
        self._closable: dict[_Phase, dict[BoundedProtocol, None]] = {
            phase: {} for phase in (_Phase.HEAD, _Phase.DRAIN, _Phase.IDLE, _Phase.AHEAD)
        }
        # So may these, the slowest last, as of the last look.
        self._slow: list[BoundedProtocol] = []
        # Those that sent the next request before they had an answer: one goes on before all else has its turn again.
        self._ahead: deque[BoundedProtocol] = deque()
        self.look_seconds = min(1.0, bounds.head_seconds / 4, bounds.body_seconds / 4, bounds.reading_seconds / 4)
        self._looking = False

    def admit(self, connection: BoundedProtocol) -> bool:
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

    def _least(self) -> BoundedProtocol | None:
        """The one that is closed for another, if any may be."""
        # Who floods is in the largest crowd; who has just come and says what it wants is not, or is not its oldest.
        crowd = max(self._closable.values(), key=len)
        while self._slow and len(self._slow) >= len(crowd):
            slowest = self._slow.pop()
            if slowest in self._open and slowest.rate() is not None:
                return slowest
        return next(iter(crowd), None) or next((each for each in self._open if each.is_unread()), None)

    def move(self, connection: BoundedProtocol, phase: _Phase) -> None:
        """It is the newest of those in that phase."""
        self.remove(connection)
        self._open[connection] = phase
        if phase in self._closable:
            self._closable[phase][connection] = None

    def remove(self, connection: BoundedProtocol) -> None:
        """It is closed, or about to be."""
        before = self._open.pop(connection, None)
        if before in self._closable:
            del self._closable[before][connection]

    def go_on_later(self, connection: BoundedProtocol) -> None:
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


class _Transport:
    """A transport that is not closed before its client has said all, within bounds; otherwise the `inner` one."""

    def __init__(self, inner: asyncio.Transport, connection: BoundedProtocol) -> None:
        self._inner = inner
        self._connection = connection
        self.lingers = False
        """The response is sent, and nothing more will be; what still comes is passed over."""
        self.written = 0
        """Bytes so far."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, content: bytes) -> None:
        self.written += len(content)
        self._inner.write(content)

    def close(self) -> None:
        if self.is_closing():
            return
        if self._connection.is_sending() and self._inner.can_write_eof():
            self.lingers = True
            self._inner.write_eof()
            self._inner.resume_reading()
        else:
            self._inner.close()

    def is_closing(self) -> bool:
        return self.lingers or self._inner.is_closing()


class _Parser(h11.Connection):
    """h11's, but for bodies that are cut so small that finding the pieces costs more than anything else."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += event.chunk_start
            self._bytes += len(event.data)
            if self.is_cut_small:
                raise h11.RemoteProtocolError("small chunks")
        return event

    @property
    def is_cut_small(self) -> bool:
        return self._pieces > _SMALL_CHUNKS and self._bytes < _CHUNK_BYTES * self._pieces


class BoundedProtocol(H11Protocol):
    """A connection of one client."""

    def __init__(self, *arguments: Any, connections: Connections, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Parser(h11.SERVER, connections.bounds.head_bytes)
        self._all = connections
        self._phase: _Phase | None = None
        self._since = 0.0
        """When the phase began."""
        self._counted = 0
        """Bytes that came since."""
        self._looked_at = self.loop.time()
        bounds = connections.bounds
        self._sends = Pace(bounds.body_seconds, bounds.body_rate)
        """The client, its body."""
        self._reads = Pace(bounds.reading_seconds, bounds.reading_rate)
        """The client, what is sent to it."""
        self._taken = 0
        """Bytes that it has read, as far as was looked."""
        self._is_unread = False
        """The response is complete, but not sent: the next request waits."""

    # What asyncio and uvicorn call.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self)))
        # Writing is paused until all is sent, and told when it is.
        transport.set_write_buffer_limits(high=0)
        if self._all.admit(self):
            self._enter(_Phase.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.remove(self)
        self._phase = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._count(len(data))
        if self._lingers:
            return
        super().data_received(data)
        self._sort(came=True)

    def on_response_complete(self) -> None:
        if self.flow.write_paused and self.conn.their_state is h11.DONE and not self.transport.is_closing():
            self._is_unread = True
        elif self.conn.trailing_data[0] and self.conn.their_state is h11.DONE:
            self._all.go_on_later(self)
        else:
            self.go_on()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_unread:
            self._is_unread = False
            self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        # The head's own bound raises the same error as a head that is no HTTP.
        too_long = len(self.conn.trailing_data[0]) > self._all.bounds.head_bytes
        if cast(_Parser, self.conn).is_cut_small:
            self._refuse(
                HTTPStatus.BAD_REQUEST, f"more than {_SMALL_CHUNKS:,} chunks have less than {_CHUNK_BYTES} bytes each"
            )
        elif too_long and self._phase in (_Phase.HEAD, _Phase.IDLE):
            most = self._all.bounds.head_bytes
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request's head has more than {most:,} bytes")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

    # What `Connections` and the transport call.

    def go_on(self) -> None:
        """The response is complete; the next request may begin."""
        super().on_response_complete()
        self._sort(came=False)

    def look(self, now: float) -> None:
        """Ends what takes too long."""
        bounds = self._all.bounds
        # A loop that is late is not the client's fault.
        elapsed = min(now - self._looked_at, 2 * self._all.look_seconds)
        self._looked_at = now
        if self._reads_too_slowly(elapsed):
            self.abort()
        elif self._phase is _Phase.HEAD and now - self._since > bounds.head_seconds:
            if self.conn.trailing_data[0]:
                self._refuse(
                    HTTPStatus.REQUEST_TIMEOUT, f"the request's head was not complete within {bounds.head_seconds:g} s"
                )
            else:
                self.transport.close()
        elif self._phase is _Phase.BODY:
            # Otherwise it is the app that does not read.
            if not self.flow.read_paused and not self._sends.keeps_up(elapsed):
                self._refuse(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the body is more than {bounds.body_seconds:g} s behind {bounds.body_rate:,} bytes per second",
                )
        elif self._phase is _Phase.DRAIN and now - self._since > bounds.drain_seconds:
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once, without a word."""
        self.transport.abort()

    def rate(self) -> float | None:
        """Bytes per second at which the client sends a body or reads its answer; None if it does neither, or has only
        begun."""
        paces = [self._reads] if self.is_unread() else []
        if self._phase is _Phase.BODY:
            paces.append(self._sends)
        return min((pace.rate for pace in paces if pace.seconds > _YOUNG_SECONDS), default=None)

    def is_unread(self) -> bool:
        """Whether there is something for the client to read that it does not take."""
        return self.transport.get_write_buffer_size() > 0

    def is_sending(self) -> bool:
        """Whether there is a request that is not complete."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    @property
    def _lingers(self) -> bool:
        return cast(_Transport, self.transport).lingers

    def _enter(self, phase: _Phase) -> None:
        self._phase, self._counted = phase, 0
        self._since = self.loop.time()
        self._sends.begin()
        if not self.transport.is_closing() or self._lingers:
            self._all.move(self, phase)

    def _sort(self, came: bool) -> None:
        """Finds the phase, after bytes came or a response was complete."""
        if self._lingers:
            phase = _Phase.DRAIN
        elif self.conn.their_state is h11.IDLE:
            # Bytes that leave it there are a part of a head.
            phase = _Phase.HEAD if came else _Phase.IDLE
        elif self.conn.their_state is h11.SEND_BODY:
            phase = _Phase.DRAIN if self.cycle.response_complete else _Phase.BODY
        else:
            phase = _Phase.AHEAD if self.conn.trailing_data[0] else _Phase.BUSY
        if phase is not self._phase:
            self._enter(phase)

    def _count(self, size: int) -> None:
        self._counted += size
        if self._phase is _Phase.BODY:
            self._sends.move(size)
        elif self._phase is _Phase.DRAIN and self._counted > self._all.bounds.drain_bytes:
            self.abort()

    def _reads_too_slowly(self, elapsed: float) -> bool:
        unread = self.transport.get_write_buffer_size()
        taken = cast(_Transport, self.transport).written - unread
        if unread == 0:
            self._reads.begin()
        else:
            self._reads.move(taken - self._taken)
        self._taken = taken
        return unread > 0 and not self._reads.keeps_up(elapsed)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answers, unless a response has begun, and closes."""
        if self.cycle is not None and not self.cycle.response_complete:
            # The app learns that nobody waits for it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort()
            return
        content = message.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        reason = STATUS_PHRASES[status]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        if self._lingers:
            self._enter(_Phase.DRAIN)
