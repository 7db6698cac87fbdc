"""Who may use the KV cache: each session with room for its whole prompt and answer."""

from __future__ import annotations

from engines.errors import RequestError
from engines.fair_queue import FairQueue


class Reservations:
    """Counts blocks, which TensorRT-LLM's executor hands out itself: what is admitted here never waits there.

    Not thread-safe: the engine's lock guards it.
    """

    def __init__(self, queue: FairQueue[str], blocks: int, block_size: int) -> None:
        self.total = self.free = blocks
        self._queue = queue
        self._block_size = block_size
        # By session, waiting or running.
        self._blocks: dict[str, int] = {}
        self._told: dict[str, int] = {}

    @property
    def running(self) -> int:
        """Sessions that hold blocks."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """Sessions that wait for blocks."""
        return self._queue.waiting

    def ask(self, session: str, owner: str, tokens: int) -> None:
        """Queues a session that needs room for `tokens`."""
        self._blocks[session] = -(-tokens // self._block_size)
        self._queue.add(session, owner)

    def refusal(self, session: str) -> RequestError | None:
        """Why the newest session may not wait; None where it may, or need not."""
        return self._queue.refusal(session)

    def admit(self) -> list[str]:
        """The sessions, in order, that have their blocks from now on."""
        admitted = []
        while (session := self._queue.next(self.free, self._blocks.__getitem__)) is not None:
            self._queue.admit(session, self._blocks[session])
            self.free -= self._blocks[session]
            admitted.append(session)
        return admitted

    def moved(self) -> list[tuple[str, int]]:
        """The sessions in the queue whose places have changed since the last call, with these; 1 is the next."""
        places = {session: place for place, session in enumerate(self._queue.order(), start=1)}
        moved = [(session, place) for session, place in places.items() if self._told.get(session) != place]
        self._told = places
        return moved

    def release(self, session: str) -> None:
        """Gives a session's blocks back, or takes it out of the queue."""
        blocks = self._blocks.pop(session)
        if session in self._queue:
            self._queue.withdraw(session)
        else:
            self._queue.leave(session, blocks)
            self.free += blocks
