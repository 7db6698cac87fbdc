"""Videos that a conversation has no room for: read part by part, they become notes in their place.

The answer that follows is an ordinary one, to the same question in the same form, by a model that reads the notes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ...aio import AsyncClient
from ...summaries import Summary, SummaryEvent, SummaryOptions, brief, clock, summarize
from ..settings import LongVideo

_SAME = ("temperature", "top_p", "top_k", "min_p", "seed")
"""How the answer is drawn, notes are drawn."""


class LongVideos:
    """Those of one conversation, in the client library's form.

    Args:
        journal: a folder that keeps what was noted, so that the next turn finds it.
        places: the owner's, in which parts are read.
    """

    def __init__(
        self,
        client: AsyncClient,
        messages: list[dict[str, Any]],
        *,
        mode: LongVideo,
        sampling: Mapping[str, Any],
        video_options: Mapping[str, Any],
        journal: Path,
        places: asyncio.Semaphore,
    ) -> None:
        self._client = client
        self._messages = messages
        self._mode = mode
        self._sampling = {name: sampling[name] for name in _SAME if name in sampling}
        self._video_options = video_options
        self._journal = journal
        self._places = places

    async def note(self) -> AsyncGenerator[SummaryEvent, None]:
        """Writes notes in the place of the videos, if that is to be done; tells how far it is.

        Raises:
            Qwen3VLError: a video cannot be opened, or a request failed.
        """
        videos = list(self._videos())
        if not videos or self._mode == "never":
            return
        look = await self._client.look_chat(self._messages, video_options=self._video_options)
        bounded = {"start", "end"} & self._video_options.keys()
        if self._mode == "auto" and (look.wanted_tokens <= look.prompt_tokens or bounded):
            return
        # A token is a byte at least, and half of the context is for what else is said.
        context_length = min(look.context_length, self._video_options.get("context_length", look.context_length))
        room_bytes = context_length // 2 // len(videos)
        for content, index in videos:
            async with aclosing(self._summarize(content[index], _asked(content))) as events:
                async for event in events:
                    yield event
            assert isinstance(event, Summary)
            content[index] = {"type": "text", "text": _notes(event, room_bytes)}

    def _videos(self) -> Iterator[tuple[list[dict[str, Any]], int]]:
        for message in self._messages:
            if not isinstance(message["content"], str):
                for index, part in enumerate(message["content"]):
                    if part["type"] == "video":
                        yield message["content"], index

    def _summarize(self, video: Mapping[str, Any], asked: str) -> AsyncGenerator[SummaryEvent, None]:
        options = SummaryOptions(
            about=asked,
            sampling=self._sampling,
            video_options=self._video_options,
            journal=self._journal,
            keep_journal=True,
            places=self._places,
        )
        return summarize(
            self._client, video.get("video"), uri=video.get("uri"), subtitles=video.get("subtitles"), options=options
        )


def _asked(content: list[dict[str, Any]]) -> str:
    """The text of the video's own message: in a later turn still the same, so that its notes are too."""
    return " ".join(part["text"] for part in content if part["type"] == "text")


def _notes(summary: Summary, room_bytes: int) -> str:
    notes = brief(summary, room_bytes)
    return f"Notes about a video of {clock(summary.seconds)}, which was seen part by part:\n\n{notes}\n\n"
