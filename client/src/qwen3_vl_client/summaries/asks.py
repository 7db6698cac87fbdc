"""What a summary needs of a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from ..results import Answer, Event, Look


class Asked(Protocol):
    """An answer while it is written."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def result(self) -> Answer:
        """The whole answer."""
        ...


class Asks(Protocol):
    """Sends a summary's requests, as `AsyncClient` does."""

    async def look(self, *, question: str, video_options: Any, **media: Any) -> Look:
        """Tells which frames a question would look at."""
        ...

    def stream(self, *, question: str, sampling: Any, whole: bool, **asked: Any) -> AbstractAsyncContextManager[Asked]:
        """Asks a question; the answer is one piece, and progress comes before it."""
        ...
