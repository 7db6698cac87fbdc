"""The order of requests for the KV cache: owners in turn, each owner's requests first come, first served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from engines.departures import Departures
from engines.errors import RequestError

Item = TypeVar("Item", bound=Hashable)

COMMON = ""
"""The owner of requests without a cache_salt, whose clients may be many."""


class FairQueue(Generic[Item]):
    """Items that wait and items that run, by owner.

    The next is the first item of the owner who has the fewest that run; of such owners, the item that came first. An
    owner who runs something may hold `owner_share` of the places and of the blocks; at this share it is passed over.
    The item that is next blocks all behind it until there is room for it. An owner may have half of those that wait.

    COMMON may have everything until the first item of another owner comes. From then on it is bounded as any owner is,
    also while nobody else is there: nothing that runs is stopped, so what others shall find must be kept free.

    No item waits for ever. While an owner's first item waits, nothing of that owner is admitted, and all that runs
    ends: then the owner has none that run, is at no share, and only items that came earlier are before it.

    Not thread-safe: the engine's lock guards it.
    """

    def __init__(self, *, places: int, blocks: int, owner_share: float, max_waiting: int) -> None:
        self._places = places
        self._places_of_one = max(1, int(owner_share * places))
        self._blocks_of_one = int(owner_share * blocks)
        self._max_waiting = max_waiting
        self._max_waiting_of_one = (max_waiting + 1) // 2
        # The owners of items; those that wait in the order in which they came.
        self._waiting: dict[Item, str] = {}
        self._running: dict[Item, str] = {}
        # By owner.
        self._places_held: Counter[str] = Counter()
        self._blocks_held: Counter[str] = Counter()
        self._departures = Departures()
        self._common_is_bounded = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def __contains__(self, item: Item) -> bool:
        """Whether it waits."""
        return item in self._waiting

    def add(self, item: Item, owner: str) -> None:
        """Lets it wait."""
        self._waiting[item] = owner
        self._common_is_bounded |= owner != COMMON

    def refusal(self, item: Item) -> RequestError | None:
        """Why the newest item may not wait, resource_exhausted; None where it may, or need not."""
        if item not in self._waiting:
            return None
        owner, others = self._waiting[item], len(self._waiting) - 1
        if others >= self._max_waiting:
            whose = "requests are waiting for the KV cache and no more may"
        else:
            others = sum(other == owner for other in self._waiting.values()) - 1
            if not self._is_bounded(owner) or others < self._max_waiting_of_one:
                return None
            if owner == COMMON:
                whose = "requests without a cache_salt are waiting for the KV cache and no more of them may"
            else:
                whose = "requests of this owner are waiting for the KV cache and no more of one owner may"
        seconds = self._departures.seconds_until(others + 1)
        return RequestError("resource_exhausted", f"{others} {whose}; retry in {seconds} s")

    def next(self, free: int, needs: Callable[[Item], int]) -> Item | None:
        """The item to be admitted now, or None; `needs` says how many of the `free` blocks one would take."""
        if self.running >= self._places:
            return None
        passed: set[str] = set()
        for item in self.order():
            owner = self._waiting[item]
            if owner in passed:
                continue
            blocks = needs(item)
            if self._is_within_share(owner, blocks):
                return item if blocks <= free else None
            passed.add(owner)
        return None

    def admit(self, item: Item, blocks: int) -> None:
        """It runs from now on, and its owner holds `blocks` more."""
        owner = self._running[item] = self._waiting.pop(item)
        self._places_held[owner] += 1
        self._blocks_held[owner] += blocks

    def leave(self, item: Item, blocks: int) -> None:
        """It runs no more, and its owner holds `blocks` fewer."""
        owner = self._running.pop(item)
        self._places_held[owner] -= 1
        self._blocks_held[owner] -= blocks
        if not self._places_held[owner]:
            del self._places_held[owner], self._blocks_held[owner]
        self._departures.add()

    def withdraw(self, item: Item) -> None:
        """It waits no more."""
        del self._waiting[item]

    def order(self) -> list[Item]:
        """Those that wait in the order in which they would be admitted if nobody left and blocks were plenty."""
        counts = self._places_held.copy()
        rank: dict[Item, tuple[bool, int]] = {}
        for item, owner in self._waiting.items():
            rank[item] = (not self._has_place(owner, counts[owner]), counts[owner])
            counts[owner] += 1
        # Sorting is stable: in order of arrival among equals.
        return sorted(rank, key=rank.__getitem__)

    def _is_bounded(self, owner: str) -> bool:
        return owner != COMMON or self._common_is_bounded

    def _has_place(self, owner: str, held: int) -> bool:
        return not self._is_bounded(owner) or held < self._places_of_one

    def _is_within_share(self, owner: str, blocks: int) -> bool:
        held = self._places_held[owner]
        if not held or not self._is_bounded(owner):
            return True
        return self._has_place(owner, held) and self._blocks_held[owner] + blocks <= self._blocks_of_one
