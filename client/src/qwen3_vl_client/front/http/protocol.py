"""One connection: uvicorn's protocol, with bounds on how long a head may take, and how slowly a body may be sent and a
response read.

A client that is refused while it still sends is listened to for a while: closed at once, a connection is reset, and the
client never sees why.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from .connections import Connections, Phase
from .paces import Pace

_YOUNG_SECONDS = 2.0
"""A client that has been slow for less is not closed for another."""
_CHUNK_BYTES = 64
_SMALL_CHUNKS = 1000
"""So many chunks of a body may be smaller than that on average."""
_MAX_HEADERS = 100
"""Of a request: each takes time before it is known who asks."""


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
    """h11's, but for heads of many headers, and bodies that are cut so small that finding the pieces costs more than
    anything else."""

    _pieces = _bytes = 0
    has_many_headers = False

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            head = self.trailing_data[0].partition(b"\r\n\r\n")[0]
            # Beside the request's own line.
            self.has_many_headers = head.count(b"\n") > _MAX_HEADERS
            if self.has_many_headers:
                raise h11.RemoteProtocolError("many headers")
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
        self._phase: Phase | None = None
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

    # Called by asyncio and uvicorn.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self)))
        # Writing is paused until all is sent, and told when it is.
        transport.set_write_buffer_limits(high=0)
        if self._all.admit(self):
            self._enter(Phase.HEAD)

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
        if cast(_Parser, self.conn).has_many_headers:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request has more than {_MAX_HEADERS} headers"
            )
        elif cast(_Parser, self.conn).is_cut_small:
            self._refuse(
                HTTPStatus.BAD_REQUEST, f"more than {_SMALL_CHUNKS:,} chunks have less than {_CHUNK_BYTES} bytes each"
            )
        elif too_long and self._phase in (Phase.HEAD, Phase.IDLE):
            most = self._all.bounds.head_bytes
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request's head has more than {most:,} bytes")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

    # Called by `Connections` and the transport.

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
        elif self._phase is Phase.HEAD and now - self._since > bounds.head_seconds:
            if self.conn.trailing_data[0]:
                self._refuse(
                    HTTPStatus.REQUEST_TIMEOUT, f"the request's head was not complete within {bounds.head_seconds:g} s"
                )
            else:
                self.transport.close()
        elif self._phase is Phase.BODY:
            # Otherwise it is the app that does not read.
            if not self.flow.read_paused and not self._sends.keeps_up(elapsed):
                self._refuse(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the body is more than {bounds.body_seconds:g} s behind {bounds.body_rate:,} bytes per second",
                )
        elif self._phase is Phase.DRAIN and now - self._since > bounds.drain_seconds:
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once, without a word."""
        self.transport.abort()

    def rate(self) -> float | None:
        """Bytes per second at which the client sends a body or reads its answer; None if it does neither, or has only
        begun."""
        paces = [self._reads] if self.is_unread() else []
        if self._phase is Phase.BODY:
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

    def _enter(self, phase: Phase) -> None:
        self._phase, self._counted = phase, 0
        self._since = self.loop.time()
        self._sends.begin()
        if not self.transport.is_closing() or self._lingers:
            self._all.move(self, phase)

    def _sort(self, came: bool) -> None:
        """Finds the phase, after bytes came or a response was complete."""
        if self._lingers:
            phase = Phase.DRAIN
        elif self.conn.their_state is h11.IDLE:
            # Bytes that leave it there are a part of a head.
            phase = Phase.HEAD if came else Phase.IDLE
        elif self.conn.their_state is h11.SEND_BODY:
            phase = Phase.DRAIN if self.cycle.response_complete else Phase.BODY
        else:
            phase = Phase.AHEAD if self.conn.trailing_data[0] else Phase.BUSY
        if phase is not self._phase:
            self._enter(phase)

    def _count(self, size: int) -> None:
        self._counted += size
        if self._phase is Phase.BODY:
            self._sends.move(size)
        elif self._phase is Phase.DRAIN and self._counted > self._all.bounds.drain_bytes:
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
            self._enter(Phase.DRAIN)
