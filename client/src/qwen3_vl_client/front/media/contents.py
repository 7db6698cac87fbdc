"""Sends an uploaded file back, in ranges."""

from __future__ import annotations

from email.utils import formatdate

from fastapi.responses import FileResponse

from ...uploads import StoredFile


def content(stored: StoredFile, media_type: str, *, attached: bool = False) -> FileResponse:
    """The file; `attached`, it is saved under its name, never shown in place.

    Equal contents of an owner are one file on the disk, whose times are those of the first. The headers by which a
    client asks whether it has changed follow from the upload that was asked for.
    """
    own = {"last-modified": formatdate(stored.created, usegmt=True), "etag": f'"{stored.id}"'}
    return FileResponse(stored.path, headers=own, media_type=media_type, filename=stored.name if attached else None)
