"""What was uploaded, sent back: in ranges, and with nothing that tells of others who uploaded the same."""

from __future__ import annotations

from email.utils import formatdate

from fastapi.responses import FileResponse

from ..uploads import StoredFile


def content(stored: StoredFile, media_type: str, *, attached: bool = False) -> FileResponse:
    """The file; `attached`, it is saved under its name, never shown in place.

    Equal contents are one file on the disk, whose times are those of whoever was first. The headers by which a client
    asks whether it has changed follow from the owner's own upload instead.
    """
    own = {"last-modified": formatdate(stored.created, usegmt=True), "etag": f'"{stored.id}"'}
    return FileResponse(stored.path, headers=own, media_type=media_type, filename=stored.name if attached else None)
