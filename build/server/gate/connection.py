"""A connection of the HTTP door that is not kept busy by a body of tiny chunks."""

from __future__ import annotations

from typing import Any

import h11
from qwen3_vl_client.front.connections import BoundedProtocol

# Chunks of this many bytes on average are small enough for any client; so many may be smaller.
_CHUNK_BYTES = 1024
_SMALL_CHUNKS = 64

_TOO_SMALL = (
    f"the body comes in chunks of less than {_CHUNK_BYTES:,} bytes on average: send larger ones, or a Content-Length"
)


class GateProtocol(BoundedProtocol):
    """One connection. A chunk takes some hundred times its own time to read when it has one byte."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = self._counter = _ChunkCounter(self.config.h11_max_incomplete_event_size)

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(_TOO_SMALL if self._counter.is_too_small else msg)


class _ChunkCounter(h11.Connection):
    """Counts the chunks of each request's body."""

    def __init__(self, head_bytes: int | None) -> None:
        super().__init__(h11.SERVER, *(() if head_bytes is None else (head_bytes,)))
        self._chunks = self._bytes = 0

    @property
    def is_too_small(self) -> bool:
        return self._chunks > _SMALL_CHUNKS + self._bytes // _CHUNK_BYTES

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_end
            self._bytes += len(event.data)
            if self.is_too_small:
                raise h11.RemoteProtocolError(_TOO_SMALL)
        return event
