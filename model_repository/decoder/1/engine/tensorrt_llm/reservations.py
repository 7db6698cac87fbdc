"""Who may use the KV cache: first come, first served, each with room for its whole prompt and answer."""

from __future__ import annotations

from collections import deque

from engine.departures import Departures


class Reservations:
    """Counts blocks, which TensorRT-LLM's executor hands out itself: what is admitted here never waits there.

    Not thread-safe: the engine's lock guards it.
    """

    def __init__(self, blocks: int, block_size: int, max_batch: int) -> None:
        self.total = self.free = blocks
        self._block_size = block_size
        self._max_batch = max_batch
        self._held: dict[str, int] = {}
        self._waiting: deque[tuple[str, int]] = deque()
        self._told: dict[str, int] = {}
        self.departures = Departures()

    @property
    def running(self) -> int:
        """Sessions that hold blocks."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Sessions that wait for blocks."""
        return len(self._waiting)

    def ask(self, session: str, tokens: int) -> None:
        """Queues a session that needs room for `tokens`."""
        self._waiting.append((session, -(-tokens // self._block_size)))

    def admit(self) -> list[str]:
        """The sessions, in order, that have their blocks from now on."""
        admitted = []
        while self._waiting and self._waiting[0][1] <= self.free and self.running < self._max_batch:
            session, blocks = self._waiting.popleft()
            self._held[session] = blocks
            self.free -= blocks
            admitted.append(session)
        return admitted

    def moved(self) -> list[tuple[str, int]]:
        """The sessions in the queue whose places have changed since the last call, with these; 1 is the next."""
        places = {session: place for place, (session, _) in enumerate(self._waiting, start=1)}
        moved = [(session, place) for session, place in places.items() if self._told.get(session) != place]
        self._told = places
        return moved

    def release(self, session: str) -> None:
        """Gives a session's blocks back, or takes it out of the queue."""
        if session in self._held:
            self.free += self._held.pop(session)
            self.departures.add()
        self._waiting = deque(entry for entry in self._waiting if entry[0] != session)
