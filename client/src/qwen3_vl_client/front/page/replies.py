"""The lines that the page hears while a question is answered or a video summarised: one JSON object each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from ...aio import AsyncStream
from ...errors import Qwen3VLError
from ...results import Progress
from ...summaries import FORMATS, Cut, Merged, PartDone, Summary, SummaryEvent
from .rendering import to_html

_RENDERED_EVERY_SECONDS = 0.08


async def answer_lines(stream: AsyncStream, video_seconds: float) -> AsyncGenerator[str, None]:
    """`progress`, then `text` with the answer so far as HTML, last `answer` with the whole and what it cost.

    An error is a last line `error`. Who stops reading stops the request.
    """
    text, rendered = "", 0.0
    try:
        async with stream:
            async for event in stream:
                if isinstance(event, Progress):
                    yield _line("progress", **asdict(event))
                else:
                    text += event.text
                    if time.monotonic() - rendered >= _RENDERED_EVERY_SECONDS:
                        rendered = time.monotonic()
                        yield _line("text", html=to_html(text, video_seconds))
            answer = await stream.result()
    except Qwen3VLError as error:
        yield _error(error)
        return
    yield _line(
        "answer",
        text=answer.text,
        html=to_html(answer.text, video_seconds),
        finish_reason=answer.finish_reason,
        usage=asdict(answer.usage),
        seconds=answer.timings.total,
        first_text_seconds=answer.timings.first_text,
    )


async def summary_lines(events: AsyncGenerator[SummaryEvent, None]) -> AsyncGenerator[str, None]:
    """`parts` with how many there are, then each `part`, each `merged`, last `summary` in all its formats."""
    try:
        async with aclosing(events):
            async for event in events:
                # A long video's summary is long: it is rendered beside the event loop.
                yield _line(*await asyncio.to_thread(_told, event))
    except Qwen3VLError as error:
        yield _error(error)


def _told(event: SummaryEvent) -> tuple[str, dict[str, Any]]:
    if isinstance(event, Cut):
        return "parts", {"total": len(event.parts)}
    if isinstance(event, PartDone):
        chapters = [asdict(chapter) for chapter in event.chapters]
        return "part", {"index": event.part.index, "chapters": chapters}
    if isinstance(event, Merged):
        return "merged", {"done": event.done, "total": event.total}
    return "summary", _summary(event)


def _summary(summary: Summary) -> dict[str, Any]:
    text = FORMATS["markdown"](summary)
    return {
        "text": text,
        "html": to_html(text, summary.seconds),
        "formats": {name: write(summary) for name, write in FORMATS.items()},
    }


def _line(kind: str, values: dict[str, Any] | None = None, **more: Any) -> str:
    return json.dumps({"kind": kind, **(values or {}), **more}, ensure_ascii=False) + "\n"


def _error(error: Qwen3VLError) -> str:
    return _line("error", code=error.code, message=error.message)
