"""The page as an ASGI app: its files, what users upload, and answers as they are written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from ..aio import AsyncClient
from ..errors import InvalidRequest, NotFound, Qwen3VLError, ResourceExhausted
from ..summaries import SummaryOptions, journals_of, sweep_journals
from ..uploads import StoredFile, Uploads
from .asked import Options, Question, SummaryOrder
from .conversation import messages
from .kinds import kind_of
from .lines import LinesResponse
from .owners import Owners
from .pictures import NoPictureError, Pictures
from .replies import answer_lines, summary_lines
from .settings import Settings

_STATIC = Path(__file__).parent / "static"
_JOURNALS = "journals"
"""Below the uploads: what is known of unfinished summaries."""
_SWEEP_SECONDS = 60.0
_MAX_NAME_CHARACTERS = 255
_STATUS = {
    InvalidRequest.code: HTTPStatus.BAD_REQUEST,
    NotFound.code: HTTPStatus.NOT_FOUND,
    ResourceExhausted.code: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True)
class _Shared:
    """What all requests use."""

    settings: Settings
    client: AsyncClient
    uploads: Uploads
    pictures: Pictures

    def uri(self, stored: StoredFile) -> str:
        """As Triton finds it below its media root."""
        return str(stored.path.relative_to(self.settings.media_root.resolve()))


def _shared(request: Request) -> _Shared:
    shared: _Shared = request.app.state.shared
    return shared


def _owner(request: Request) -> str:
    owner: str = request.state.owner
    return owner


Shared = Annotated[_Shared, Depends(_shared)]
Owner = Annotated[str, Depends(_owner)]


def _stored(file_id: str, shared: Shared, owner: Owner) -> StoredFile:
    return shared.uploads.find(owner, file_id)


Stored = Annotated[StoredFile, Depends(_stored)]

router = APIRouter()


@router.get("/")
async def page() -> FileResponse:
    """The page itself; the browser asks whether it has changed."""
    return FileResponse(_STATIC / "index.html", headers={"cache-control": "no-cache"})


@router.get("/files")
async def list_files(shared: Shared, owner: Owner) -> list[dict[str, Any]]:
    """The caller's own files, oldest first."""
    return [_described(stored) for stored in shared.uploads.files(owner)]


@router.post("/files")
async def upload(
    request: Request, shared: Shared, owner: Owner, name: Annotated[str, Query(max_length=_MAX_NAME_CHARACTERS)]
) -> dict[str, Any]:
    """The body is the file, written as it arrives."""
    try:
        kind_of(name)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    with shared.uploads.begin(owner) as receiving:
        async for piece in request.stream():
            await asyncio.to_thread(receiving.write, piece)
        return _described(await asyncio.to_thread(receiving.finish, name, purpose="user_data"))


@router.delete("/files/{file_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_file(file_id: str, shared: Shared, owner: Owner) -> None:
    """Deletes one of the caller's own files."""
    shared.uploads.delete(owner, file_id)


@router.get("/files/{file_id}/content")
async def file_content(stored: Stored) -> FileResponse:
    """What was uploaded, in ranges as players ask for it."""
    return FileResponse(stored.path, media_type=kind_of(stored.name)[1])


@router.get("/files/{file_id}/look")
async def look_at_file(stored: Stored, shared: Shared, options: Annotated[Options, Query()]) -> dict[str, Any]:
    """What of a video would be looked at, and where it changes."""
    look = await shared.client.look(uri=shared.uri(stored), video_options=options.video_options())
    (video,) = look.media
    return {"prompt_tokens": look.prompt_tokens, "wanted_tokens": look.wanted_tokens, **asdict(video)}


@router.get("/files/{file_id}/picture")
async def picture(stored: Stored, shared: Shared, at: Annotated[float, Query(ge=0, le=1e7)]) -> Response:
    """A small picture of what a video shows at that second."""
    try:
        jpeg = await shared.pictures.jpeg(stored.path, at)
    except NoPictureError as error:
        raise NotFound(str(error)) from None
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


@router.post("/ask")
async def ask(question: Question, shared: Shared, owner: Owner) -> Response:
    """Answers line by line; who goes away ends the request."""
    files = [shared.uploads.find(owner, file) for file in question.files]
    stream = shared.client.stream_chat(
        await asyncio.to_thread(messages, question, files, shared.uri),
        sampling=question.options.sampling(),
        video_options=question.options.video_options(),
    )
    return LinesResponse(answer_lines(stream, question.video_seconds))


@router.post("/summarize")
async def summarize(order: SummaryOrder, shared: Shared, owner: Owner) -> Response:
    """Summarises a video of any length, line by line; who goes away ends the requests."""
    stored = shared.uploads.find(owner, order.file)
    subtitles = None if order.subtitles is None else shared.uploads.find(owner, order.subtitles).path
    options = SummaryOptions(
        about=order.about,
        language=order.language,
        in_flight=shared.settings.parts_in_flight,
        sampling=order.options.sampling(),
        video_options=order.options.video_options(),
        journal=journals_of(owner, shared.uploads.folder / _JOURNALS),
    )
    events = shared.client.summarize(uri=shared.uri(stored), subtitles=subtitles, options=options)
    return LinesResponse(summary_lines(events))


def create_app(settings: Settings) -> FastAPI:
    """The page; users see their own files only."""
    uploads = Uploads(
        settings.media_root / "uploads",
        quota_bytes=settings.upload_quota_bytes,
        capacity_bytes=settings.upload_capacity_bytes,
        expiry_seconds=settings.upload_expiry_seconds,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(uploads))
        pictures = Pictures()
        async with AsyncClient(settings.url) as client:
            app.state.shared = _Shared(settings, client, uploads, pictures)
            yield
        sweeping.cancel()
        pictures.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.add_middleware(Owners)
    app.add_exception_handler(Qwen3VLError, _failed)
    app.add_exception_handler(RequestValidationError, _malformed)
    return app


def _described(stored: StoredFile) -> dict[str, Any]:
    return {"id": stored.id, "name": stored.name, "kind": kind_of(stored.name)[0], "size_bytes": stored.size_bytes}


async def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Qwen3VLError)
    status = _STATUS.get(error.code, HTTPStatus.BAD_GATEWAY)
    return JSONResponse({"code": error.code, "message": error.message}, status)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"] if step != "body")
    return JSONResponse({"code": InvalidRequest.code, "message": f"{where}: {first['msg']}"}, HTTPStatus.BAD_REQUEST)


async def _sweep(uploads: Uploads) -> None:
    while True:
        await asyncio.to_thread(uploads.sweep)
        await asyncio.to_thread(sweep_journals, uploads.folder / _JOURNALS, uploads.expiry_seconds)
        await asyncio.sleep(_SWEEP_SECONDS)
