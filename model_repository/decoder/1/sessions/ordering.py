"""Chunks in the order in which they were sent: Triton promises none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from engines.errors import invalid_argument

T = TypeVar("T")


class InOrder(Generic[T]):
    """Restores the order of items that carry an index, holding at most `window` of them back."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._next = 0
        self._held: dict[int, T] = {}

    def put(self, index: int, item: T) -> Iterator[T]:
        """Takes an item; yields those that are next in order.

        Raises invalid_argument for an index that came before, and for one further ahead than the window.
        """
        if index < self._next or index in self._held:
            raise invalid_argument(f"chunk {index} came twice")
        if index > self._next + self._window:
            raise invalid_argument(
                f"chunk {index} came while chunk {self._next} is missing; at most {self._window} ahead are accepted"
            )
        self._held[index] = item
        return self._ready()

    def _ready(self) -> Iterator[T]:
        while self._next in self._held:
            self._next += 1
            yield self._held.pop(self._next - 1)
