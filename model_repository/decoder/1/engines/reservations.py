"""Blocks of the KV cache, counted for an engine whose executor hands them out itself."""

from __future__ import annotations

from typing import Generic

from engines.admission import Item
from engines.fair_queue import FairQueue


class Reservations(Generic[Item]):
    """Admits sessions in the queue's order, so that the executor never makes one wait.

    Not thread-safe: the engine's lock guards it.
    """

    def __init__(self, queue: FairQueue[Item], blocks: int, block_size: int) -> None:
        self.total = self.free = blocks
        self._queue = queue
        self._block_size = block_size

    def admit(self) -> Item | None:
        """Reserves blocks for the session that is next, if there is room for it."""
        item = self._queue.next(self.free, self._needs)
        if item is not None:
            self._queue.admit(item, self._needs(item))
            self.free -= self._needs(item)
        return item

    def release(self, item: Item) -> None:
        """Gives a session's blocks back, or takes it out of the queue."""
        if item in self._queue:
            self._queue.withdraw(item)
        else:
            self._queue.leave(item, self._needs(item))
            self.free += self._needs(item)

    def _needs(self, item: Item) -> int:
        return -(-item.reserved_tokens // self._block_size)
