"""Summaries for ordinary code: the same events from a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..media import Media
from .summarizing import SummaryOptions, summarize
from .summary import SummaryEvent

if TYPE_CHECKING:
    from ..aio import AsyncClient


def summarize_blocking(
    client: AsyncClient, video: Media | None, uri: str | None, subtitles: Media | None, options: SummaryOptions
) -> Iterator[SummaryEvent]:
    """The events of `summarize`; requests go on only while one is waited for. Closes `client` at the end."""
    loop = asyncio.new_event_loop()
    events = summarize(client, video, uri=uri, subtitles=subtitles, options=options)
    try:
        while (event := loop.run_until_complete(anext(events, None))) is not None:
            yield event
    finally:
        loop.run_until_complete(events.aclose())
        loop.run_until_complete(client.close())
        loop.close()
