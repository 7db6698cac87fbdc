"""Summaries of video of any length: parts are described by requests in flight together, and merged level by level."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InvalidRequest, ResourceExhausted
from ..media import Media
from ..options import SamplingParameters, VideoOptions, merge
from ..results import Answer, Look, TextDelta
from .asks import Asks
from .cutting import Part, cut
from .grouping import grouped, shortened
from .journal import Journal
from .notes import MERGE_SCHEMA, PART_SCHEMA, Note, read_merged, read_part
from .prompts import merge_question, part_question
from .summary import Cut, Merged, PartDone, Summary, SummaryEvent

_LEAST_PART_SECONDS = 1.0
_ANSWER_TOKENS = 2048
_MARGIN = 0.9
"""Of the context is planned with: parts are not all alike."""
_READ_AT_ONCE = 2
"""Requests whose media are being read: while one is decoded, the other is prefilled. More would only take memory and
make each of them later; writing answers is what goes faster together."""
_REFUSED_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Waited, if the server does not say longer, before a request that it had no room for is sent again."""


@dataclass(frozen=True)
class SummaryOptions:
    """How a video is summarised.

    about: what matters most, in the user's words.
    language: that titles and texts are written in, by its English name.
    part_seconds: the longest part; shorter where the context does not hold so much in full detail.
    max_parts: the most parts, as the length of the video divides; a video with more is refused.
    in_flight: requests at the same time.
    places: shared with other summaries; each request holds one of them while it runs.
    sampling, video_options: of every request; the seed is 0 unless one is given.
    journal: a folder that keeps the answers until the summary is complete: an interrupted one goes on where it was.
    keep_journal: a complete one's answers stay too: made again, it is there at once.
    """

    about: str = ""
    language: str = "English"
    part_seconds: float = 300.0
    max_parts: int = 2000
    in_flight: int = 8
    places: asyncio.Semaphore | None = None
    sampling: SamplingParameters | Mapping[str, Any] = field(default_factory=SamplingParameters)
    video_options: VideoOptions | Mapping[str, Any] = field(default_factory=VideoOptions)
    journal: Path | None = None
    keep_journal: bool = False

    def __post_init__(self) -> None:
        if not self.part_seconds >= _LEAST_PART_SECONDS:
            raise ValueError(f"part_seconds is {self.part_seconds}; at least {_LEAST_PART_SECONDS:g} is accepted")
        for name in ("max_parts", "in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is accepted")


async def summarize(
    client: Asks,
    video: Media | None = None,
    *,
    uri: str | None = None,
    subtitles: Media | None = None,
    options: SummaryOptions = SummaryOptions(),
) -> AsyncGenerator[SummaryEvent, None]:
    """Tells how the video is cut, each part as it is done, each merger, and last the whole `Summary`.

    Closing the iterator stops the requests that still run.

    Args:
        video: a file or its bytes, uploaded with every part's request; for what is large, `uri` is the way.
        uri: a path below the server's media root.
        subtitles: a file with its lines (SRT, VTT, ASS).

    Raises:
        Qwen3VLError: the video cannot be opened, or a request failed. With a journal, what was done is kept.
    """
    if (video is None) == (uri is None):
        raise InvalidRequest("a summary is of one video: either video or uri is accepted")
    summarizer = _Summarizer(client, video, uri, subtitles, options)
    # Leaving a generator closes it, but not those that it reads from.
    async with aclosing(summarizer.run()) as events:
        async for event in events:
            yield event


class _Summarizer:
    def __init__(
        self,
        client: Asks,
        video: Media | None,
        uri: str | None,
        subtitles: Media | None,
        options: SummaryOptions,
    ) -> None:
        self._client = client
        self._video = video
        self._media: dict[str, Any] = {"video": video, "uri": uri, "subtitles": subtitles}
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._options = options
        self._sampling, self._video_options = merge(options.sampling, options.video_options, {})
        self._sampling = {"seed": 0, "max_tokens": _ANSWER_TOKENS, **self._sampling}
        if bounds := sorted({"start", "end"} & self._video_options.keys()):
            raise InvalidRequest(f"video_options.{bounds[0]} is given; a summary is of the whole video")

    async def run(self) -> AsyncGenerator[SummaryEvent, None]:
        look = await self._look()
        parts = await self._cut(look)
        journal = Journal(self._options.journal, await asyncio.to_thread(self._key, look))
        yield Cut(parts, resumed=len(journal))

        done: dict[int, PartDone] = {}
        jobs = (self._part_job(part, len(parts), journal) for part in parts)
        async with aclosing(_together(jobs, self._options.in_flight)) as results:
            async for result in results:
                done[result.part.index] = result
                yield result
        ordered = [done[part.index] for part in parts]
        notes = tuple(each.note for each in ordered)
        top = notes[0]
        async with aclosing(self._merge(notes, look.context_length // 2, journal)) as mergers:
            async for merged in mergers:
                yield merged
                top = merged.note
        chapters = tuple(chapter for each in ordered for chapter in each.chapters)
        if not self._options.keep_journal:
            journal.remove()
        yield Summary(top.title, top.text, parts[-1].end, chapters, notes)

    async def _look(self, **bounds: float) -> Look:
        """What a part's question would look at between `bounds`; the words of all of them are about as long."""
        question = part_question(Part(0, 0.0, 0.0), 2, self._options.about, self._options.language)
        return await self._client.look(
            **self._media, question=question, video_options={**self._video_options, **bounds}
        )

    async def _cut(self, look: Look) -> tuple[Part, ...]:
        """Into parts that the context holds in full detail; one that fits as a whole and is short enough stays so."""
        (video,) = look.media
        asked_seconds = part_seconds = min(self._options.part_seconds, video.seconds)
        first = look if part_seconds == video.seconds else await self._look(start=0.0, end=part_seconds)
        if first.wanted_tokens > first.prompt_tokens:
            part_seconds *= _MARGIN * first.prompt_tokens / first.wanted_tokens
        part_seconds = max(part_seconds, _LEAST_PART_SECONDS)
        self._check_count(video.seconds, part_seconds, asked_seconds)
        return await asyncio.to_thread(cut, video.seconds, part_seconds, video.cuts, video.changes, video.pauses)

    def _check_count(self, seconds: float, part_seconds: float, asked_seconds: float) -> None:
        most = self._options.max_parts
        if (count := math.ceil(seconds / part_seconds)) <= most:
            return
        least_seconds = math.ceil(seconds / most)
        if part_seconds < asked_seconds:
            way = f"the context holds no more, so that a longer one or a lower fps makes parts of {least_seconds:,} s"
        else:
            way = f"part_seconds of {least_seconds} or more is accepted for this video"
        raise InvalidRequest(
            f"the video of {seconds:,.0f} s has {count:,} parts of {part_seconds:.4g} s; at most {most:,} are accepted"
            f" (max_parts): {way}"
        )

    def _key(self, look: Look) -> dict[str, Any]:
        """What the answers depend on. Of a file at the server only the look is known."""
        options = self._options
        return {
            "media": {name: _named(name, medium) for name, medium in self._media.items()},
            "look": asdict(look),
            "about": options.about,
            "language": options.language,
            "part_seconds": options.part_seconds,
            "sampling": self._sampling,
            "video_options": self._video_options,
        }

    def _part_job(self, part: Part, parts: int, journal: Journal) -> Callable[[], Awaitable[PartDone]]:
        async def job() -> PartDone:
            # What is shown at the boundary itself belongs to the next part.
            end = part.end if part.index == parts - 1 else part.end - 0.001
            answer = await self._answer(
                journal,
                f"part {part.index}",
                part_question(part, parts, self._options.about, self._options.language),
                PART_SCHEMA,
                **self._media,
                video_options={**self._video_options, "start": part.start, "end": end},
            )
            note, chapters = read_part(answer, part)
            return PartDone(part, note, chapters)

        return job

    async def _merge(self, notes: Sequence[Note], room_bytes: int, journal: Journal) -> AsyncGenerator[Merged, None]:
        level = 0
        while len(notes) > 1:
            level += 1
            groups = grouped(notes, room_bytes)
            merged: dict[int, Note] = {}
            jobs = (self._merge_job(level, index, group, room_bytes, journal) for index, group in enumerate(groups))
            async with aclosing(_together(jobs, self._options.in_flight)) as results:
                async for index, note in results:
                    merged[index] = note
                    yield Merged(level, len(merged), len(groups), note)
            notes = [merged[index] for index in range(len(groups))]

    def _merge_job(
        self, level: int, index: int, notes: Sequence[Note], room_bytes: int, journal: Journal
    ) -> Callable[[], Awaitable[tuple[int, Note]]]:
        async def job() -> tuple[int, Note]:
            if len(notes) == 1:
                return index, notes[0]
            question = merge_question(shortened(notes, room_bytes), self._options.about, self._options.language)
            answer = await self._answer(journal, f"merger {level}.{index}", question, MERGE_SCHEMA)
            return index, read_merged(answer, notes)

        return job

    async def _answer(self, journal: Journal, step: str, question: str, schema: Mapping[str, Any], **asked: Any) -> str:
        if (known := journal.get(step)) is not None:
            return known
        form = {"type": "json_schema", "json_schema": {"name": "summary", "schema": schema}}
        sampling = {**self._sampling, "response_format": form}
        for seconds in (*_REFUSED_SECONDS, None):
            try:
                answer = await self._ask(question=question, sampling=sampling, **asked)
            except ResourceExhausted as error:
                if seconds is None:
                    raise
                await asyncio.sleep(max(seconds, error.retry_after_seconds or 0.0))
            else:
                journal.add(step, answer.text)
                return answer.text
        raise AssertionError("the last try returns or raises")

    async def _ask(self, **asked: Any) -> Answer:
        """The whole answer; once its prompt is read, the next request's may be."""
        place = self._options.places or nullcontext()
        async with place, AsyncExitStack() as reading, self._client.stream(**asked, whole=True) as stream:
            await reading.enter_async_context(self._reading)
            async for event in stream:
                if isinstance(event, TextDelta) or 0 < event.prompt_tokens == event.prefilled_tokens:
                    await reading.aclose()
            return await stream.result()


def _named(name: str, medium: Media | None) -> str:
    """A uri as it is, anything else by its content."""
    if medium is None:
        return ""
    if name == "uri":
        return str(medium)
    if isinstance(medium, bytes):
        return hashlib.sha256(medium).hexdigest()
    digest = hashlib.sha256()
    with Path(medium).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


_Result = TypeVar("_Result")


async def _together(jobs: Iterable[Callable[[], Awaitable[_Result]]], in_flight: int) -> AsyncGenerator[_Result, None]:
    """The jobs' results as they come. When one fails, or nobody waits any more, the others are cancelled.

    A job is taken when it is its turn: however many there are, so many as run take memory.
    """
    waiting = iter(jobs)
    running: list[asyncio.Future[_Result]] = []

    def fill() -> None:
        while len(running) < in_flight and (job := next(waiting, None)) is not None:
            running.append(asyncio.ensure_future(job()))

    try:
        fill()
        while running:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task.done()]:
                result = await task
                running.remove(task)
                fill()
                yield result
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
