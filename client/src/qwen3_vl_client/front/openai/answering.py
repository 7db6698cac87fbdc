"""One answer while it is made: long videos are read first, then the conversation is answered."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from ...aio import AsyncStream
from ...results import Answer, Progress, TextDelta
from ...summaries import Cut, Merged, PartDone, Summary, SummaryEvent
from .long_videos import LongVideos

Telling = SummaryEvent | Progress | TextDelta
"""The events of an answer: parts of long videos, then how far the prompt is read, then text."""


class Answering:
    """Begin it, iterate over what it tells, then ask for its `result()`; close it in any case."""

    def __init__(self, long_videos: LongVideos, ask: Callable[[], AsyncStream]) -> None:
        self._long_videos = long_videos
        self._ask = ask
        self._stream: AsyncStream | None = None
        self._events = self._tell()
        self._first: Telling | None = None
        self._id = uuid.uuid4().hex

    @property
    def id(self) -> str:
        """The server's name for the request; after long videos were read, one of its own."""
        return self._id

    async def begin(self) -> None:
        """Waits until a part of a long video or the prompt is being read; errors before that are raised here."""
        async for event in self._events:
            if not isinstance(event, Progress) or event.phase == "prefill":
                self._first = event
                break
        if self._stream is not None:
            self._id = str(self._stream.request_id)

    async def __aiter__(self) -> AsyncIterator[Telling]:
        if self._first is not None:
            yield self._first
        async for event in self._events:
            yield event

    async def result(self) -> Answer:
        """The whole answer; waits for it, passing over what is left to tell.

        Raises:
            Qwen3VLError: there is no answer; its class says why.
        """
        async for _ in self._events:
            pass
        assert self._stream is not None
        return await self._stream.result()

    async def close(self) -> None:
        """Ends what still runs."""
        await self._events.aclose()

    async def _tell(self) -> AsyncGenerator[Telling, None]:
        async with aclosing(self._long_videos.note()) as notes:
            async for noted in notes:
                yield noted
        async with self._ask() as self._stream:
            async for event in self._stream:
                yield event


def describe_progress(event: SummaryEvent | Progress) -> str:
    """In a few words for people, on one line."""
    match event:
        case Progress():
            return f"{event.phase}, {event.prefilled_tokens} of {event.prompt_tokens} tokens"
        case Cut(parts, resumed):
            return f"a long video is read in {len(parts)} parts, {resumed} answers are known"
        case PartDone(part, note, _):
            return f"part {part.index + 1} is read: {note.title}"
        case Merged(level, done, total, _):
            return f"level {level}: {done} of {total} accounts are merged"
        case Summary():
            return f"all of it is read: {event.title}"
