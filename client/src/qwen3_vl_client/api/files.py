"""`/v1/files`: uploads that chat completions refer to by id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel

from ..errors import InvalidRequest
from ..uploads import StoredFile
from .errors import documented
from .multipart import FileForm
from .services import CountedOwner, Owner, Shared
from .storing import Storing

router = APIRouter(prefix="/v1/files")

Purpose = Literal["user_data", "vision", "assistants", "batch", "fine-tune", "evals"]
_PURPOSES = get_args(Purpose)
_DEFAULT_PURPOSE = "user_data"
_MAX_NAME_CHARACTERS = 255
_UNKNOWN = documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
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
    ),
)
async def upload_file(request: Request, shared: Shared, owner: CountedOwner) -> FileObject:
    """Takes a file, of any size within the quota. It is written as it arrives, so a client's own progress is true."""
    form = FileForm(request.headers.get("content-type", ""), request.stream())
    with shared.uploads.begin(owner) as upload:
        storing = Storing(upload)
        async for piece in form.pieces():
            await storing.write(piece)
        # What the file is called and for how long it is kept may have come after it.
        stored = await storing.finish(_name(form), purpose=_purpose(form), expiry_seconds=_expiry_seconds(form.fields))
    shared.metrics.uploaded_bytes.inc(stored.size_bytes)
    return FileObject.of(stored)


@router.get("", responses=documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED))
async def list_files(
    shared: Shared,
    owner: Owner,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(description="The id of the last file that was seen.")] = None,
) -> FileList:
    """The caller's own files, newest first unless `order` says otherwise."""
    files = [stored for stored in shared.uploads.files(owner) if purpose in (None, stored.purpose)]
    if order == "desc":
        files.reverse()
    if after is not None:
        ids = [stored.id for stored in files]
        if after not in ids:
            raise InvalidRequest(f"after is {after!r}; the id of one of your files is accepted")
        files = files[ids.index(after) + 1 :]
    page = [FileObject.of(stored) for stored in files[:limit]]
    return FileList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(files) > limit,
    )


@router.get("/{file_id}", responses=_UNKNOWN)
async def retrieve_file(file_id: str, shared: Shared, owner: Owner) -> FileObject:
    """One of the caller's own files."""
    return FileObject.of(shared.uploads.find(owner, file_id))


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
async def retrieve_file_content(file_id: str, shared: Shared, owner: Owner) -> FileResponse:
    """What was uploaded, byte for byte; ranges are accepted."""
    stored = shared.uploads.find(owner, file_id)
    # Never shown in place: what users upload is no page of this server.
    return FileResponse(
        stored.path,
        media_type="application/octet-stream",
        filename=stored.name,
        headers={"x-content-type-options": "nosniff"},
    )


@router.delete("/{file_id}", responses=_UNKNOWN)
async def delete_file(file_id: str, shared: Shared, owner: Owner) -> DeletedFile:
    """Deletes one of the caller's own files."""
    shared.uploads.delete(owner, file_id)
    return DeletedFile(id=file_id)


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
