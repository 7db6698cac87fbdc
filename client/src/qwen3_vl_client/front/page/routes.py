"""The page's routes: the page itself, its users' files, and answers as they are written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from ...summaries import SummaryOptions, journals_of
from ...uploads import StoredFile
from ..asking import json_body
from ..http.disconnects import unless_gone
from ..media.contents import content
from ..media.storing import Storing
from ..owners import Asker, CountedOwner, Viewer
from ..services import Resources, Shared
from .asked import Options, Question, SummaryOrder
from .conversation import messages
from .kinds import kind_of
from .replies import answer_lines, summary_lines

STATIC = Path(__file__).parent / "static"
_MAX_NAME_CHARACTERS = 255

router = APIRouter()


async def _stored(file_id: str, shared: Shared, owner: CountedOwner) -> StoredFile:
    return await asyncio.to_thread(shared.uploads.find, owner, file_id)


Stored = Annotated[StoredFile, Depends(_stored)]
"""The owner's file that the path names. It is looked up once the request was counted."""


async def _viewed(file_id: str, shared: Shared, viewer: Viewer) -> StoredFile:
    return await asyncio.to_thread(shared.uploads.find, viewer, file_id)


Viewed = Annotated[StoredFile, Depends(_viewed)]
"""The same, of a request for a picture or content."""


@router.get("/")
async def page() -> FileResponse:
    """The page itself; the browser asks whether it has changed."""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


@router.get("/files")
async def list_files(shared: Shared, owner: CountedOwner) -> Response:
    """The caller's own files, oldest first."""
    # Many files take time: none of it in the event loop.
    return await asyncio.to_thread(lambda: JSONResponse([_described(stored) for stored in shared.uploads.files(owner)]))


@router.post("/files")
async def upload(
    request: Request, shared: Shared, owner: CountedOwner, name: Annotated[str, Query(max_length=_MAX_NAME_CHARACTERS)]
) -> dict[str, Any]:
    """The body is the file, written as it arrives."""
    kind_of(name)
    async with Storing(shared.uploads, owner) as storing:
        async for piece in request.stream():
            await storing.write(piece)
        return _described(await storing.finish(name))


@router.delete("/files/{file_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_file(file_id: str, shared: Shared, owner: CountedOwner) -> None:
    """Deletes one of the caller's own files."""
    await asyncio.to_thread(shared.uploads.delete, owner, file_id)


@router.get("/files/{file_id}/content")
async def file_content(stored: Viewed) -> FileResponse:
    """The uploaded content, in ranges as players ask for it."""
    return content(stored, kind_of(stored.name)[1])


@router.get("/files/{file_id}/look")
async def look_at_file(
    stored: Stored, shared: Shared, asker: Asker, options: Annotated[Options, Query()]
) -> dict[str, Any]:
    """The frames of a video that would be looked at, and where it changes."""
    look = await asker.look(uri=shared.uri(stored), video_options=options.video_options())
    (video,) = look.media
    return {"prompt_tokens": look.prompt_tokens, "wanted_tokens": look.wanted_tokens, **asdict(video)}


@router.get("/files/{file_id}/picture")
async def picture(
    request: Request,
    stored: Viewed,
    shared: Shared,
    viewer: Viewer,
    at: Annotated[float, Query(ge=0, le=1e7, allow_inf_nan=False)],
) -> Response:
    """A small picture of what a video shows at that second. A client that goes away ends its decoder."""
    jpeg = await unless_gone(request, shared.pictures.jpeg(stored.path, at, viewer))
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


@router.post("/ask")
async def ask(
    question: Annotated[Question, Depends(json_body(Question))],
    shared: Shared,
    owner: CountedOwner,
    asker: Asker,
    resources: Resources,
) -> Response:
    """Answers line by line; a client that goes away ends the request."""
    files = [await asyncio.to_thread(shared.uploads.find, owner, file) for file in question.files]
    stream = asker.stream_chat(
        await asyncio.to_thread(messages, question, files, shared.uri),
        sampling=question.options.sampling(),
        video_options=question.options.video_options(),
    )
    return await _written(answer_lines(stream, question.video_seconds), resources)


@router.post("/summarize")
async def summarize(
    order: Annotated[SummaryOrder, Depends(json_body(SummaryOrder))],
    shared: Shared,
    owner: CountedOwner,
    asker: Asker,
    resources: Resources,
) -> Response:
    """Summarises a video of any length, line by line; a client that goes away ends the requests."""
    named = [order.file] if order.subtitles is None else [order.file, order.subtitles]
    stored, *others = [await asyncio.to_thread(shared.uploads.find, owner, file) for file in named]
    options = SummaryOptions(
        about=order.about,
        language=order.language,
        in_flight=shared.settings.parts_in_flight,
        places=shared.places.of(owner),
        sampling=order.options.sampling(),
        video_options=order.options.video_options(),
        journal=journals_of(owner, shared.settings.journals),
    )
    subtitles = others[0].path if others else None
    events = asker.summarize(uri=shared.uri(stored), subtitles=subtitles, options=options)
    return await _written(summary_lines(events), resources)


def _described(stored: StoredFile) -> dict[str, Any]:
    return {"id": stored.id, "name": stored.name, "kind": kind_of(stored.name)[0], "size_bytes": stored.size_bytes}


async def _written(lines: AsyncGenerator[str, None], resources: AsyncExitStack) -> StreamingResponse:
    """Sends the lines as they come. They end with the request: whoever stops reading stops what writes them."""
    await resources.enter_async_context(aclosing(lines))
    return StreamingResponse(
        lines, media_type="application/x-ndjson", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )
