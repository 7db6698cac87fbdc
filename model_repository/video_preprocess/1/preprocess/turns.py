"""Turns: one thread of each owner at a time, while those of others go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL_SECONDS = 0.1


class Turns:
    """Who has a turn now. Used by several threads."""

    def __init__(self) -> None:
        self._owners: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def of(self, owner: str, interrupt: Callable[[], None]) -> Iterator[None]:
        """A turn of `owner`, waited for if need be. Calls `interrupt` meanwhile; what that raises ends the waiting."""
        while not self._take(owner):
            interrupt()
        try:
            yield
        finally:
            with self._changed:
                self._owners.remove(owner)
                self._changed.notify_all()

    def _take(self, owner: str) -> bool:
        with self._changed:
            if owner in self._owners:
                self._changed.wait(_POLL_SECONDS)
            if owner in self._owners:
                return False
            self._owners.add(owner)
            return True
