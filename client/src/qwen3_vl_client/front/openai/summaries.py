"""`/v1/summaries`: accounts of videos of any length."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ...aio import AsyncClient
from ...errors import Qwen3VLError
from ...summaries import Cut, Merged, PartDone, Summary, SummaryEvent, SummaryOptions, journals_of, summarize
from ..asking import json_body
from ..errors import GENERATION_ERRORS, ErrorBody, describe
from ..http.disconnects import unless_gone
from ..owners import Asker, CountedOwner
from ..services import Resources, Services, Shared
from . import events
from .models import ModelName, check_model
from .video_kwargs import VideoOptions

router = APIRouter(prefix="/v1/summaries")


class SummaryRequest(BaseModel):
    """Which video is summarised, and how. URLs are those of a chat's parts."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: ModelName
    video: str
    subtitles: str | None = None
    about: str = ""
    """The subject that matters most."""
    language: str = Field(default="English", max_length=64)
    """That is written in, by its English name."""
    part_seconds: float = Field(default=300.0, ge=1, le=86_400)
    """The longest part; shorter where the context does not hold so much in full detail."""
    max_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """The answer about each part has so many at most."""
    seed: int = Field(default=0, ge=-(2**63), le=2**63 - 1)
    video_options: VideoOptions | None = None
    stream: bool | None = None


class Span(BaseModel):
    """Seconds of the whole video."""

    start: float
    end: float


class ChapterObject(Span):
    title: str
    key_points: list[str]


class SummaryObject(BaseModel):
    """The account of a whole video; chapters are in order, none overlaps the next."""

    id: str
    object: Literal["video.summary"] = "video.summary"
    created: int
    model: str
    title: str
    text: str
    seconds: float
    chapters: list[ChapterObject]


class CutObject(BaseModel):
    """The video is cut; so many of its parts were summarised before the request was interrupted."""

    object: Literal["video.summary.cut"] = "video.summary.cut"
    parts: list[Span]
    resumed: int


class PartObject(Span):
    """A part is summarised. Parts come in the order in which they are done."""

    object: Literal["video.summary.part"] = "video.summary.part"
    title: str
    text: str
    chapters: list[ChapterObject]


class MergedObject(Span):
    """Accounts became one of the next level, `done` of `total` there."""

    object: Literal["video.summary.merged"] = "video.summary.merged"
    level: int
    done: int
    total: int
    title: str
    text: str


STREAMED = (SummaryObject, CutObject, PartObject, MergedObject)


@router.post(
    "",
    response_model=SummaryObject,
    responses={
        200: {
            "description": "The summary; with `stream`, server-sent events of what is done, then it, then `[DONE]`.",
            "content": events.described(*(kind.__name__ for kind in STREAMED), "ErrorBody"),
        },
        **GENERATION_ERRORS,
    },
    openapi_extra=events.described_body(SummaryRequest),
)
async def create_summary(
    request: Request,
    body: Annotated[SummaryRequest, Depends(json_body(SummaryRequest))],
    shared: Shared,
    owner: CountedOwner,
    asker: Asker,
    resources: Resources,
) -> Response:
    """Summarises a video of any length: in parts, which are then merged.

    A client that closes its connection ends it; the same request goes on where it was.
    """
    check_model(body.model, shared)
    head = {"id": f"summary-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    progress = await unless_gone(request, _begin(body, shared, owner, asker, resources))
    first = await unless_gone(request, anext(progress))
    if body.stream:
        return StreamingResponse(_events(first, progress, head), media_type=events.MEDIA_TYPE, headers=events.HEADERS)
    summary = await unless_gone(request, _last(progress))
    return JSONResponse(_object(summary, head).model_dump())


async def _begin(
    body: SummaryRequest, shared: Services, owner: str, asker: AsyncClient, resources: AsyncExitStack
) -> AsyncGenerator[SummaryEvent, None]:
    part = await shared.references.video(body.video, body.subtitles, "video", owner, resources)
    sampling: dict[str, Any] = {"seed": body.seed}
    if body.max_tokens is not None:
        sampling["max_tokens"] = body.max_tokens
    options = SummaryOptions(
        about=body.about,
        language=body.language,
        part_seconds=body.part_seconds,
        places=shared.places.of(owner),
        sampling=sampling,
        video_options=body.video_options.model_dump(exclude_none=True) if body.video_options else {},
        journal=journals_of(owner, shared.settings.journals),
    )
    return await resources.enter_async_context(
        aclosing(
            summarize(
                asker,
                part.get("video"),
                uri=part.get("uri"),
                subtitles=part.get("subtitles"),
                options=options,
            )
        )
    )


async def _last(progress: AsyncGenerator[SummaryEvent, None]) -> SummaryEvent:
    async for event in progress:
        last = event
    return last


async def _events(
    first: SummaryEvent, progress: AsyncGenerator[SummaryEvent, None], head: dict[str, Any]
) -> AsyncIterator[str]:
    yield events.event(_object(first, head))
    try:
        async for event in progress:
            yield events.event(_object(event, head))
    except Qwen3VLError as error:
        yield events.event(ErrorBody(error=describe(error)))
    yield events.DONE


def _object(event: SummaryEvent, head: dict[str, Any]) -> BaseModel:
    match event:
        case Cut(parts, resumed):
            return CutObject(parts=[Span(start=part.start, end=part.end) for part in parts], resumed=resumed)
        case PartDone(_, note, chapters):
            return PartObject(**asdict(note), chapters=[ChapterObject(**asdict(chapter)) for chapter in chapters])
        case Merged(level, done, total, note):
            return MergedObject(level=level, done=done, total=total, **asdict(note))
        case Summary(title, text, seconds, chapters):
            return SummaryObject(
                **head,
                title=title,
                text=text,
                seconds=seconds,
                chapters=[ChapterObject(**asdict(chapter)) for chapter in chapters],
            )
