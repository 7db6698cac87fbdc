"""Requests that wait for an answer, and what is lost of them when the process of a stage dies.

Triton 2.51 never answers what a dead process held. A request of a stage alone, like a look of stage 1, is lost at once.
A request of the ensemble is held by all stages: when the decoder dies it is lost at once too; when another one does,
stage 3 tells most clients itself, and those that it does not know of are told here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from build.serve.server.triton import ENSEMBLE

# The stages need about three seconds to end the ensemble's requests themselves.
_ENDING_SECONDS = 5.0


class Waiting:
    """A client's call that waits for answers; `end` ends it with a reason."""

    def __init__(self, end: Callable[[str], None]) -> None:
        self._end = end
        self._asked: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()

    @property
    def awaited(self) -> int:
        """The number of answers that are awaited."""
        return self._asked.total() - self._answered.total()

    def ask(self, model: str) -> None:
        self._asked[model] += 1

    def answer(self, model: str) -> None:
        """A request of the model has had its last answer. Triton names none where it refuses a request itself."""
        open_requests = self._asked - self._answered
        if not model:
            model = next(iter(open_requests), "")
        if open_requests[model]:
            self._answered[model] += 1

    def asked(self, model: str) -> int:
        """The number of the model's requests until now."""
        return self._asked[model]

    def lose(self, model: str, asked: int, reason: str) -> None:
        """Ends the call if one of the first `asked` requests of the model still waits."""
        if self._answered[model] < asked <= self._asked[model]:
            self._asked.clear()
            self._answered.clear()
            self._end(reason)


class Losses:
    """All calls that wait."""

    def __init__(self) -> None:
        self._waiting: set[Waiting] = set()

    @contextmanager
    def watching(self, waiting: Waiting) -> Iterator[None]:
        """Until the block ends, the call hears of stages that die."""
        self._waiting.add(waiting)
        try:
            yield
        finally:
            self._waiting.discard(waiting)

    def stage_died(self, stage: str, retry_seconds: int) -> None:
        """Ends what is lost. The server is whole again after about `retry_seconds`."""
        reason = f"{stage} died and is being loaded again: retry in {retry_seconds} s"
        self._lose(stage, self._asked(stage), reason)
        delay_seconds = 0.0 if stage == "decoder" else _ENDING_SECONDS
        loop = asyncio.get_running_loop()
        loop.call_later(delay_seconds, self._lose, ENSEMBLE, self._asked(ENSEMBLE), reason)

    def _asked(self, model: str) -> dict[Waiting, int]:
        return {waiting: asked for waiting in self._waiting if (asked := waiting.asked(model))}

    def _lose(self, model: str, asked: dict[Waiting, int], reason: str) -> None:
        for waiting in asked.keys() & self._waiting:
            waiting.lose(model, asked[waiting], reason)
