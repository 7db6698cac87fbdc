"""Summaries for ordinary code: the same events from a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing

from ..media import Media
from .asks import Asks
from .summarizing import SummaryOptions, summarize
from .summary import SummaryEvent


def summarize_blocking(
    connect: Callable[[], AbstractAsyncContextManager[Asks]],
    video: Media | None,
    uri: str | None,
    subtitles: Media | None,
    options: SummaryOptions,
) -> Iterator[SummaryEvent]:
    """The events of `summarize`, by a client that `connect` makes. Requests go on only while an event is waited for."""

    async def told() -> AsyncGenerator[SummaryEvent, None]:
        async with (
            connect() as client,
            aclosing(summarize(client, video, uri=uri, subtitles=subtitles, options=options)) as events,
        ):
            async for event in events:
                yield event

    loop = asyncio.new_event_loop()
    events = told()
    try:
        while (event := loop.run_until_complete(anext(events, None))) is not None:
            yield event
    finally:
        loop.run_until_complete(events.aclose())
        loop.close()
