"""Bounds the bytes of requests that all doors together hold at the same time."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_FREE_BYTES = 64 * 1024


class FullError(Exception):
    """There is no room now. The message says what is held and what may be."""


class Budget:
    """Counts the bytes of requests that have arrived and not yet gone on."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    @contextmanager
    def holding(self, size: int = 0) -> Iterator[Holding]:
        """Counts the bytes that one request holds until the block ends. Raises FullError when `size` is too much."""
        holding = Holding(self)
        try:
            holding.add(size)
            yield holding
        finally:
            self._held_bytes -= holding.counted_bytes

    def hold(self, size: int) -> None:
        """Raises FullError when `size` bytes more are too many."""
        if self._held_bytes + size > self._max_bytes:
            raise FullError(
                f"the gate holds {self._held_bytes:,} bytes of requests, and at most {self._max_bytes:,} together:"
                " try again later"
            )
        self._held_bytes += size


class Holding:
    """The bytes that one request holds. The first do not count: where all is taken, short requests still find room."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0
        self.counted_bytes = 0

    def add(self, size: int) -> None:
        """Raises FullError when so many bytes more are too many."""
        self._size += size
        more = max(0, self._size - _FREE_BYTES) - self.counted_bytes
        self._budget.hold(more)
        self.counted_bytes += more


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Mallinfo


def allocated_bytes() -> int:
    """The bytes that this process has allocated, with gRPC's own buffers for messages that have half arrived."""
    info = _mallinfo2()
    return int(info.uordblks + info.hblkhd)
