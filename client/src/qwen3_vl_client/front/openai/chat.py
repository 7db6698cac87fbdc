"""`/v1/chat/completions`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ...aio import AsyncClient
from ...errors import Cancelled, Qwen3VLError
from ...results import Answer, TextDelta
from ...summaries import journals_of
from ..asking import json_body
from ..errors import GENERATION_ERRORS, ErrorBody, describe
from ..http.disconnects import unless_gone
from ..media.frame_list import FrameTimes
from ..owners import Asker, CountedOwner
from ..services import Resources, Services, Shared
from . import events
from .answering import Answering, describe_progress
from .chat_request import ChatRequest, ImagePart, Message, VideoPart
from .chat_response import (
    AnswerMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    finish_reason,
    usage,
)
from .long_videos import LongVideos
from .models import check_model

router = APIRouter(prefix="/v1/chat/completions")


@router.post(
    "",
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "The answer; with `stream`, server-sent events: chunks, then `[DONE]`.",
            "content": events.described("ChatCompletionChunk", "ErrorBody"),
        },
        **GENERATION_ERRORS,
    },
    openapi_extra=events.described_body(ChatRequest),
)
async def create_chat_completion(
    request: Request,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
    shared: Shared,
    owner: CountedOwner,
    asker: Asker,
    resources: Resources,
) -> Response:
    """Answers a conversation about videos, images and text.

    A client that closes its connection ends the generation.
    """
    check_model(body.model, shared)
    answering = await unless_gone(request, _begin(body, shared, owner, asker, resources))
    reply = _Reply(answering, body, shared)
    if body.stream:
        return StreamingResponse(reply.events(), media_type=events.MEDIA_TYPE, headers=reply.headers)
    completion = await unless_gone(request, reply.completion())
    return JSONResponse(completion.model_dump(), headers=reply.headers)


class _Reply:
    """One answer, told in OpenAI's form."""

    def __init__(self, answering: Answering, body: ChatRequest, shared: Services) -> None:
        self._answering = answering
        self._includes_usage = body.includes_usage
        self._metrics = shared.metrics
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{answering.id}",
            "created": int(time.time()),
            "model": body.model,
        }
        self.headers = {"x-request-id": answering.id, **events.HEADERS}

    async def completion(self) -> ChatCompletion:
        """The whole answer; errors are those of `Answering.result`."""
        answer = await self._answer()
        choice = Choice(message=AnswerMessage(content=answer.text), finish_reason=finish_reason(answer))
        return ChatCompletion(**self._head, choices=[choice], usage=usage(answer))

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events: chunks, then `[DONE]`; between them comments, while there is progress but no text. An
        error is an event too: by now the response has its status."""
        yield self._chunk(Delta(role="assistant", content=""))
        try:
            async for event in self._answering:
                if isinstance(event, TextDelta):
                    yield self._chunk(Delta(content=event.text))
                else:
                    yield events.comment(describe_progress(event))
            answer = await self._answer()
        except Qwen3VLError as error:
            yield events.event(ErrorBody(error=describe(error)))
        else:
            yield self._chunk(Delta(), finish_reason(answer))
            if self._includes_usage:
                yield events.event(ChatCompletionChunk(**self._head, choices=[], usage=usage(answer)))
        yield events.DONE

    async def _answer(self) -> Answer:
        answer = await self._answering.result()
        if answer.finish_reason == "cancelled":
            raise Cancelled("the server ended the request before its answer was complete", request_id=answer.request_id)
        self._metrics.answered(answer)
        return answer

    def _chunk(self, delta: Delta, reason: FinishReason | None = None) -> str:
        choice = ChunkChoice(delta=delta, finish_reason=reason)
        return events.event(ChatCompletionChunk(**self._head, choices=[choice]))


async def _begin(
    body: ChatRequest, shared: Services, owner: str, asker: AsyncClient, resources: AsyncExitStack
) -> Answering:
    """The answer, once it is certain that there will be one: media are open, options are accepted, and the prompt or
    the first part of a long video is being read. Until then an error has its own status."""
    times = body.frame_times()
    messages = [
        await _message(message, index, times, shared, owner, resources) for index, message in enumerate(body.messages)
    ]
    sampling, video_options = body.sampling_parameters(), body.server_video_options()
    long_videos = LongVideos(
        asker,
        messages,
        mode=body.long_video or shared.settings.long_video,
        sampling=sampling,
        video_options=video_options,
        journal=journals_of(owner, shared.settings.journals),
        places=shared.places.of(owner),
    )
    answering = Answering(
        long_videos, lambda: asker.stream_chat(messages, sampling=sampling, video_options=video_options)
    )
    resources.push_async_callback(answering.close)
    await answering.begin()
    return answering


async def _message(
    message: Message, index: int, times: FrameTimes, shared: Services, owner: str, resources: AsyncExitStack
) -> dict[str, Any]:
    """The message in the client library's form."""
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(message.content):
        where = f"messages[{index}].content[{number}].{part.type}"
        if isinstance(part, ImagePart):
            parts.append(await shared.references.image(part.image_url.url, where, owner, resources))
        elif isinstance(part, VideoPart):
            video = part.video_url
            parts.append(await shared.references.video(video.url, video.subtitles, where, owner, resources, times))
        else:
            parts.append({"type": "text", "text": part.text})
    return {"role": role, "content": parts}
