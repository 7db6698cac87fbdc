"""`/v1/chat/completions` and `/v1/models`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from ..aio import AsyncStream
from ..errors import Cancelled, Qwen3VLError
from ..results import Answer, Event, TextDelta
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
from .errors import ApiError, ErrorBody, describe, documented
from .metrics import CLIENT_CLOSED_REQUEST
from .services import CountedOwner, Owner, Resources, Services, Shared

Result = TypeVar("Result")

router = APIRouter(prefix="/v1")

_STARTED = int(time.time())
_MODEL_OWNER = "qwen3-vl-triton"
_SCHEMAS = "#/components/schemas"
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "anyOf": [
                {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [{"$ref": f"{_SCHEMAS}/ChatCompletionChunk"}, {"$ref": f"{_SCHEMAS}/ErrorBody"}]
                    },
                },
                {"const": "[DONE]"},
            ]
        }
    },
}
_ERRORS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = _STARTED
    owned_by: str = _MODEL_OWNER


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models", responses=documented(HTTPStatus.UNAUTHORIZED))
async def list_models(shared: Shared, owner: Owner) -> Models:
    """The names under which the one model that is served answers."""
    return Models(data=[Model(id=name) for name in shared.settings.models])


@router.get("/models/{model:path}", responses=documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND))
async def retrieve_model(model: str, shared: Shared, owner: Owner) -> Model:
    """One of these names."""
    _check_model(model, shared.settings.models)
    return Model(id=model)


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "The answer; with `stream`, server-sent events: chunks, then `[DONE]`.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        **_ERRORS,
    },
)
async def create_chat_completion(
    request: Request, body: ChatRequest, shared: Shared, owner: CountedOwner, resources: Resources
) -> Response:
    """Answers a conversation about videos, images and text.

    A client that closes its connection ends the generation.
    """
    _check_model(body.model, shared.settings.models)
    resources.enter_context(shared.limits.running(owner))
    try:
        stream, first = await _unless_gone(request, _begin(body, shared, owner, resources))
        reply = _Reply(stream, body, shared)
        if body.stream:
            return StreamingResponse(reply.events(first), media_type="text/event-stream", headers=reply.headers)
        completion = await _unless_gone(request, reply.completion())
    except _ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return JSONResponse(completion.model_dump(), headers=reply.headers)


class _ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class _Reply:
    """One answer, told in OpenAI's form."""

    def __init__(self, stream: AsyncStream, body: ChatRequest, shared: Services) -> None:
        self._stream = stream
        self._includes_usage = body.includes_usage
        self._metrics = shared.metrics
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{stream.request_id}",
            "created": int(time.time()),
            "model": body.model,
        }
        # Proxies are asked not to hold events back.
        self.headers = {
            "x-request-id": str(stream.request_id),
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
        }

    async def completion(self) -> ChatCompletion:
        """The whole answer; errors are those of `AsyncStream.result`."""
        answer = await self._answer()
        choice = Choice(message=AnswerMessage(content=answer.text), finish_reason=finish_reason(answer))
        return ChatCompletion(**self._head, choices=[choice], usage=usage(answer))

    async def events(self, first: Event | None) -> AsyncIterator[str]:
        """Server-sent events: chunks, then `[DONE]`; between them comments, while there is progress but no text. An
        error is an event too: by now the response has its status."""
        yield self._chunk(Delta(role="assistant", content=""))
        try:
            event = first
            while event is not None:
                if isinstance(event, TextDelta):
                    yield self._chunk(Delta(content=event.text))
                else:
                    yield f": {event.phase}, {event.prefilled_tokens} of {event.prompt_tokens} tokens\n\n"
                event = await anext(self._stream, None)
            answer = await self._answer()
        except Qwen3VLError as error:
            yield _event(ErrorBody(error=describe(error)))
        else:
            yield self._chunk(Delta(), finish_reason(answer))
            if self._includes_usage:
                yield _event(ChatCompletionChunk(**self._head, choices=[], usage=usage(answer)))
        yield "data: [DONE]\n\n"

    async def _answer(self) -> Answer:
        answer = await self._stream.result()
        if answer.finish_reason == "cancelled":
            raise Cancelled("the server ended the request before its answer was complete", request_id=answer.request_id)
        self._metrics.answered(answer)
        return answer

    def _chunk(self, delta: Delta, reason: FinishReason | None = None) -> str:
        choice = ChunkChoice(delta=delta, finish_reason=reason)
        return _event(ChatCompletionChunk(**self._head, choices=[choice]))


async def _begin(
    body: ChatRequest, shared: Services, owner: str, resources: AsyncExitStack
) -> tuple[AsyncStream, Event | None]:
    """The answer's stream, once it is certain that there will be one: media are open, options are accepted, and the
    prompt is being read. Until then an error has its own status. Also the event that told; None: there was no text."""
    messages = [await _message(message, index, shared, owner, resources) for index, message in enumerate(body.messages)]
    stream = await resources.enter_async_context(
        shared.client.stream_chat(
            messages, sampling=body.sampling_parameters(), video_options=body.server_video_options()
        )
    )
    async for event in stream:
        if isinstance(event, TextDelta) or event.phase == "prefill":
            return stream, event
    return stream, None


async def _message(
    message: Message, index: int, shared: Services, owner: str, resources: AsyncExitStack
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
            parts.append(await shared.references.video(video.url, video.subtitles, where, owner, resources))
        else:
            parts.append({"type": "text", "text": part.text})
    return {"role": role, "content": parts}


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Does the work, unless the client goes away meanwhile: then the work is cancelled.

    Raises:
        _ClientGoneError: it went away.
    """
    # A scope cancels until the work has ended; a task's cancellation may be lost in Python 3.11's `wait_for`.
    with anyio.CancelScope() as scope:
        watching = asyncio.create_task(_cancel_when_gone(request, scope))
        try:
            return await work
        finally:
            watching.cancel()
    raise _ClientGoneError


async def _cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    # The body has been read: what is left to come is the end of the connection.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _check_model(model: str, models: Sequence[str]) -> None:
    if model not in models:
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            f"the model {model!r} is not served here; {', '.join(map(repr, models))} is",
            code="model_not_found",
            param="model",
        )


def _event(data: BaseModel) -> str:
    return f"data: {data.model_dump_json()}\n\n"
