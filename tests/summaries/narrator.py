"""A client that answers like a model that saw everything, for tests of what is made of its answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qwen3_vl_client import Answer, Look, LookedMedium, Progress, TextDelta, Timings, Usage

SCENE_SECONDS = 50.0


def describe(start: float, end: float) -> str:
    """A chapter for each scene of 50 seconds of the part."""
    starts = [start, *(time for time in range(0, 10_000, int(SCENE_SECONDS)) if start < time < end)]
    chapters = [
        {"start": begin, "end": finish, "title": f"Scene {int(begin // SCENE_SECONDS)}", "key_points": ["One."]}
        for begin, finish in zip(starts, [*starts[1:], end], strict=True)
    ]
    return json.dumps({"title": f"From {start:g}", "summary": f"Until {end:g}.", "chapters": chapters})


def merge(question: str) -> str:
    return json.dumps({"title": "All of it", "summary": " ".join(question.split("\n\n")[1].split("\n"))})


@dataclass
class Narrator:
    """Stands in for `AsyncClient`. The video has a token a second, `context` is the room for it."""

    seconds: float = 1000.0
    context: int = 10_000
    context_length: int = 100_000
    answer: Callable[[float, float], str] = describe
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    reading: int = 0
    most_reading: int = 0
    cancelled: int = 0

    async def look(
        self, video: object, uri: object, subtitles: object, question: str, video_options: Mapping[str, Any]
    ) -> Look:
        wanted = int(video_options.get("end", self.seconds) - video_options.get("start", 0))
        cuts = tuple(float(time) for time in range(50, int(self.seconds), 50))
        medium = LookedMedium("video", (1, 4, 4), (0.5,), self.seconds, cuts, ())
        return Look(min(wanted, self.context), wanted, self.context_length, (medium,))

    def stream(self, video: object = None, *, question: str, whole: bool, **request: Any) -> Telling:
        assert whole
        return Telling(self, question, request)

    def tell(self, question: str, request: Mapping[str, Any]) -> str:
        """The answer to one request."""
        options = request.get("video_options")
        return merge(question) if options is None else self.answer(options["start"], options["end"])


class Telling:
    """One answer of a narrator, read and then told."""

    def __init__(self, narrator: Narrator, question: str, request: Mapping[str, Any]) -> None:
        self.narrator = narrator
        self.question = question
        self.request = request
        self.text = ""

    async def __aenter__(self) -> Telling:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Progress | TextDelta]:
        narrator = self.narrator
        narrator.asked.append({"question": self.question, **self.request})
        narrator.running += 1
        narrator.reading += 1
        narrator.most_running = max(narrator.most_running, narrator.running)
        narrator.most_reading = max(narrator.most_reading, narrator.reading)
        try:
            await asyncio.sleep(0.01)
            narrator.reading -= 1
            self.text = narrator.tell(self.question, self.request)
            yield Progress("prefill", 100, 100)
            await asyncio.sleep(0.03)
            yield TextDelta(self.text)
        except asyncio.CancelledError:
            narrator.cancelled += 1
            raise
        finally:
            narrator.running -= 1

    async def result(self) -> Answer:
        return Answer(self.text, "stop", Usage(), Timings(), "0" * 32)
