"""The page as an ASGI app: its files, what users upload, and answers as they are written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

from ..aio import AsyncClient
from ..errors import InvalidRequest, NotFound, Qwen3VLError, ResourceExhausted, Timeout
from ..front.bodies import HeldBodies, InvalidBodyError
from ..front.contents import content
from ..front.disconnects import CLIENT_CLOSED_REQUEST, ClientGoneError, unless_gone
from ..front.headers import put_into_every_response
from ..front.hosts import HostsMiddleware
from ..front.parts import Places
from ..front.rates import Rates, RequestLimits
from ..front.refusals import RefusedError, shortened
from ..front.secret import Secret
from ..front.storing import Storing
from ..front.sweeping import sweeping
from ..summaries import SummaryOptions, journals_of, sweep_journals
from ..uploads import DiskFull, QuotaExceeded, StoredFile, TooManyUploads, Uploads
from .asked import Options, Question, SummaryOrder
from .conversation import messages
from .kinds import kind_of
from .lines import LinesResponse
from .owners import HEADERS, Owners
from .pictures import Pictures, TooManyPictures
from .replies import answer_lines, summary_lines
from .services import Asker, CountedOwner, Resources, Services, Shared, Stored, Viewed, Viewer, json_body
from .settings import Settings

_STATIC = Path(__file__).parent / "static"
_JOURNALS = "journals"
"""Below the uploads: what is known of unfinished summaries."""
_MAX_NAME_CHARACTERS = 255
# The most special class first.
_STATUSES: Sequence[tuple[type[Qwen3VLError], HTTPStatus]] = (
    (InvalidRequest, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (QuotaExceeded, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (DiskFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (TooManyUploads, HTTPStatus.TOO_MANY_REQUESTS),
    (TooManyPictures, HTTPStatus.TOO_MANY_REQUESTS),
    (ResourceExhausted, HTTPStatus.SERVICE_UNAVAILABLE),
    (Timeout, HTTPStatus.GATEWAY_TIMEOUT),
    (Qwen3VLError, HTTPStatus.BAD_GATEWAY),
)

router = APIRouter()


@router.get("/")
async def page() -> FileResponse:
    """The page itself; the browser asks whether it has changed."""
    return FileResponse(_STATIC / "index.html", headers={"cache-control": "no-cache"})


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
    try:
        kind_of(name)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
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
    """What was uploaded, in ranges as players ask for it."""
    return content(stored, kind_of(stored.name)[1])


@router.get("/files/{file_id}/look")
async def look_at_file(
    stored: Stored, shared: Shared, asker: Asker, options: Annotated[Options, Query()]
) -> dict[str, Any]:
    """What of a video would be looked at, and where it changes."""
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
    """A small picture of what a video shows at that second; who goes away ends its decoder."""
    try:
        jpeg = await unless_gone(request, shared.pictures.jpeg(stored.path, at, viewer))
    except ClientGoneError:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


@router.post("/ask")
async def ask(
    question: Annotated[Question, Depends(json_body(Question))],
    shared: Shared,
    owner: CountedOwner,
    asker: Asker,
    resources: Resources,
) -> Response:
    """Answers line by line; who goes away ends the request."""
    files = [await asyncio.to_thread(shared.uploads.find, owner, file) for file in question.files]
    stream = asker.stream_chat(
        await asyncio.to_thread(messages, question, files, shared.uri),
        sampling=question.options.sampling(),
        video_options=question.options.video_options(),
    )
    return LinesResponse(answer_lines(stream, question.video_seconds))


@router.post("/summarize")
async def summarize(
    order: Annotated[SummaryOrder, Depends(json_body(SummaryOrder))],
    shared: Shared,
    owner: CountedOwner,
    asker: Asker,
    resources: Resources,
) -> Response:
    """Summarises a video of any length, line by line; who goes away ends the requests."""
    named = [order.file] if order.subtitles is None else [order.file, order.subtitles]
    stored, *others = [await asyncio.to_thread(shared.uploads.find, owner, file) for file in named]
    options = SummaryOptions(
        about=order.about,
        language=order.language,
        in_flight=shared.settings.parts_in_flight,
        places=shared.places.of(owner),
        sampling=order.options.sampling(),
        video_options=order.options.video_options(),
        journal=journals_of(owner, shared.uploads.folder / _JOURNALS),
    )
    subtitles = others[0].path if others else None
    events = asker.summarize(uri=shared.uri(stored), subtitles=subtitles, options=options)
    return LinesResponse(summary_lines(events))


def create_app(settings: Settings) -> FastAPI:
    """The page; users see their own files only."""
    uploads = Uploads(
        settings.media_root / "uploads",
        quota_bytes=settings.upload_quota_bytes,
        capacity_bytes=settings.upload_capacity_bytes,
        expiry_seconds=settings.upload_expiry_seconds,
        max_files=settings.upload_max_files,
        max_at_once=settings.uploads_at_once,
        min_free_bytes=settings.upload_free_bytes,
    )

    secret = Secret.load(uploads.folder)
    journals = uploads.folder / _JOURNALS

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pictures = Pictures()
        async with (
            sweeping(uploads.sweep, lambda: sweep_journals(journals, uploads.expiry_seconds)),
            AsyncClient(settings.url) as client,
        ):
            app.state.shared = Services(
                settings=settings,
                client=client,
                secret=secret,
                uploads=uploads,
                pictures=pictures,
                limits=RequestLimits(settings.requests_per_minute, settings.concurrent_requests),
                views=Rates(settings.views_per_minute, "pictures and contents"),
                places=Places(settings.parts_in_flight),
                bodies=HeldBodies(settings.max_held_bytes),
            )
            yield
        await pictures.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.add_middleware(Owners, secret=secret, new_per_minute=settings.new_users_per_minute, public="/static/")
    app.add_middleware(HostsMiddleware, hosts=settings.hosts, answer=_answer)
    put_into_every_response(app, HEADERS)
    app.add_exception_handler(Qwen3VLError, _failed)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(InvalidBodyError, _malformed)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


def _described(stored: StoredFile) -> dict[str, Any]:
    return {"id": stored.id, "name": stored.name, "kind": kind_of(stored.name)[0], "size_bytes": stored.size_bytes}


async def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Qwen3VLError)
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    headers = {"retry-after": "1"} if status is HTTPStatus.TOO_MANY_REQUESTS else None
    return JSONResponse({"code": error.code, "message": shortened(error.message)}, status, headers=headers)


def _answer(refusal: RefusedError) -> JSONResponse:
    return JSONResponse(
        {"code": refusal.code, "message": shortened(refusal.message)}, refusal.status, headers=refusal.headers
    )


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return _answer(error)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError | InvalidBodyError)
    first = error.first if isinstance(error, InvalidBodyError) else error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    message = shortened(f"{where}: {first['msg']}")
    return JSONResponse({"code": InvalidRequest.code, "message": message}, HTTPStatus.BAD_REQUEST)


async def _gone(request: Request, error: Exception) -> Response:
    """The client went away while it was sending."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)
