"""How much of one kind goes on at the same time for one owner, over all that the owner asks."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Places:
    """So many for each owner, whose requests wait for one in the order in which they come. For one event loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._by_owner: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """Only of owners of whom a request holds them."""

    def of(self, owner: str) -> asyncio.Semaphore:
        """The owner's; hold it as long as something runs in its places."""
        return self._by_owner.setdefault(owner, asyncio.Semaphore(self._count))
