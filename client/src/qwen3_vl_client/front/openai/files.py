"""`/v1/files`: uploads that chat completions refer to by id."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from ...errors import InvalidRequest, NotFound
from ...uploads import StoredFile, Uploads
from ..errors import documented
from ..media.contents import content
from ..media.multipart import FileForm
from ..media.storing import Storing
from ..owners import CountedOwner
from ..services import Shared

router = APIRouter(prefix="/v1/files")

Purpose = Literal["user_data", "vision", "assistants", "batch", "fine-tune", "evals"]
_PURPOSES = get_args(Purpose)
_DEFAULT_PURPOSE = "user_data"
_MAX_NAME_CHARACTERS = 255
_MAX_LIMIT = 10_000
"""That is accepted, as OpenAI does."""
_MAX_LISTED = 1_000
"""On one page, whatever `limit` says: `has_more` tells that there are others."""
_UNKNOWN = documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS)
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(_PURPOSES), "default": _DEFAULT_PURPOSE},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 1},
                    },
                }
            }
        },
    }
}


class FileObject(BaseModel):
    """An uploaded file; times are Unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"

    @classmethod
    def of(cls, stored: StoredFile) -> FileObject:
        return cls(
            id=stored.id,
            bytes=stored.size_bytes,
            created_at=int(stored.created),
            expires_at=int(stored.expires),
            filename=stored.name,
            purpose=stored.purpose,
        )


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


@router.post(
    "",
    openapi_extra=_FORM,
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INSUFFICIENT_STORAGE,
    ),
)
async def upload_file(request: Request, shared: Shared, owner: CountedOwner) -> FileObject:
    """Takes a file, of any size within the quota. It is written as it arrives, so a client's own progress is true."""
    form = FileForm(request.headers.get("content-type", ""), request.stream())
    async with Storing(shared.uploads, owner) as storing:
        async for piece in form.pieces():
            await storing.write(piece)
        # The file's name and expiry may have come after it.
        stored = await storing.finish(_name(form), purpose=_purpose(form), expiry_seconds=_expiry_seconds(form.fields))
    shared.metrics.uploaded_bytes.inc(stored.size_bytes)
    return FileObject.of(stored)


@router.get(
    "",
    response_model=FileList,
    responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS),
)
async def list_files(
    shared: Shared,
    owner: CountedOwner,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT)] = _MAX_LISTED,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(description="The id of the last file that was seen.")] = None,
) -> Response:
    """The caller's own files, newest first unless `order` says otherwise; at most 1,000 on a page."""
    page = await asyncio.to_thread(
        _page, shared.uploads, owner, purpose, min(limit, _MAX_LISTED), order == "desc", after
    )
    return Response(page, media_type="application/json")


@router.get("/{file_id}", responses=_UNKNOWN)
async def retrieve_file(file_id: str, shared: Shared, owner: CountedOwner) -> FileObject:
    """One of the caller's own files."""
    return FileObject.of(await asyncio.to_thread(shared.uploads.find, owner, file_id))


@router.get(
    "/{file_id}/content",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "A range of it"},
        416: {"description": "No such range"},
        **_UNKNOWN,
    },
)
async def retrieve_file_content(file_id: str, shared: Shared, owner: CountedOwner) -> FileResponse:
    """The uploaded content, byte for byte; ranges are accepted."""
    stored = await asyncio.to_thread(shared.uploads.find, owner, file_id)
    # Never shown in place: what users upload is no page of this server.
    response = content(stored, "application/octet-stream", attached=True)
    response.headers["x-content-type-options"] = "nosniff"
    return response


@router.delete("/{file_id}", responses=_UNKNOWN)
async def delete_file(file_id: str, shared: Shared, owner: CountedOwner) -> DeletedFile:
    """Deletes one of the caller's own files."""
    await asyncio.to_thread(shared.uploads.delete, owner, file_id)
    return DeletedFile(id=file_id)


def _page(
    uploads: Uploads, owner: str, purpose: str | None, limit: int, newest_first: bool, after: str | None
) -> bytes:
    """A `FileList` as JSON. Both take time with many files, so neither is done in the event loop."""
    try:
        # One more tells whether there are more.
        found = uploads.files(owner, purpose=purpose, after=after, newest_first=newest_first, limit=limit + 1)
    except NotFound:
        raise InvalidRequest(f"after is {after!r}; the id of one of your files is accepted") from None
    data = [FileObject.of(stored) for stored in found[:limit]]
    page = FileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )
    return page.model_dump_json().encode()


def _name(form: FileForm) -> str:
    return Path(form.filename or "").name[:_MAX_NAME_CHARACTERS] or "unnamed"


def _purpose(form: FileForm) -> str:
    purpose = form.fields.get("purpose", _DEFAULT_PURPOSE)
    if purpose not in _PURPOSES:
        raise InvalidRequest(f"purpose is {purpose!r}; accepted are {', '.join(_PURPOSES)}")
    return purpose


def _expiry_seconds(fields: Mapping[str, str]) -> float | None:
    anchor = fields.get("expires_after[anchor]", "created_at")
    seconds = fields.get("expires_after[seconds]")
    if anchor != "created_at":
        raise InvalidRequest(f"expires_after[anchor] is {anchor!r}; 'created_at' is accepted")
    if seconds is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,9}", seconds):
        raise InvalidRequest(f"expires_after[seconds] is {seconds!r}; a whole number above 0 is accepted")
    return float(seconds)
