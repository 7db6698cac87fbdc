"""Local videos and images: checked and read before anything is sent."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from .errors import InvalidRequest

Media = str | os.PathLike[str] | bytes
"""An encoded video or image: a path to a local file, or its bytes."""

# A gRPC message is smaller than 2 GiB; 1 MiB is left for what goes beside the media.
MAX_UPLOAD_BYTES = 2**31 - 2**20
# As at the server. A request's subtitles may be of many videos.
MAX_SUBTITLES_BYTES = 8 * 2**20
_MAX_ALL_SUBTITLES_BYTES = 64 * 2**20


def listed(media: Media | Sequence[Media] | None) -> list[Media]:
    """One, several or none, as a list."""
    if media is None:
        return []
    return [media] if isinstance(media, str | os.PathLike | bytes) else list(media)


def read(kind: str, media: Sequence[Media]) -> list[bytes]:
    """The encoded bytes of each; `kind` (`video`, `image` or `subtitles`) is what messages call them.

    Raises:
        InvalidRequest: one is missing, no file, empty, too large or unreadable, or together they are too large to
            upload.
    """
    sizes = [_size(kind, medium) for medium in media]
    if kind == "subtitles":
        for medium, size in zip(media, sizes, strict=True):
            check_subtitles(f"subtitles {_name(medium)}", size)
        check_subtitles("subtitles of one request", sum(sizes), _MAX_ALL_SUBTITLES_BYTES)
    _check_size(kind, sum(sizes))
    encoded = [
        medium if isinstance(medium, bytes) else _contents(kind, medium, size)
        for medium, size in zip(media, sizes, strict=True)
    ]
    if b"" in encoded:
        raise InvalidRequest(f"{kind} {_name(media[encoded.index(b'')])} is empty")
    return encoded


def check_subtitles(what: str, size: int, bound: int = MAX_SUBTITLES_BYTES) -> None:
    """Raises `InvalidRequest` for so many bytes, before they are read."""
    if size > bound:
        raise InvalidRequest(f"{what}: {size:,} bytes; at most {bound:,} bytes are accepted")


def check_upload(encoded: Sequence[bytes]) -> None:
    """Raises `InvalidRequest` if the media of one request are together too large to upload."""
    _check_size("media", sum(map(len, encoded)))


def _check_size(kind: str, size: int) -> None:
    if size > MAX_UPLOAD_BYTES:
        raise InvalidRequest(
            f"{kind} to upload: {size:,} bytes; at most {MAX_UPLOAD_BYTES:,} bytes fit one request. Put larger files "
            "below the server's media root and name them by uri="
        )


def _size(kind: str, medium: Media) -> int:
    if isinstance(medium, bytes):
        return len(medium)
    if not isinstance(medium, str | os.PathLike):
        raise InvalidRequest(f"{kind} is a {type(medium).__name__}; a path or bytes are accepted")
    path = Path(medium)
    try:
        if path.is_dir():
            raise InvalidRequest(f"{kind} {_name(medium)} is a folder; a file is accepted")
        status = path.stat()
        # A pipe or a device has no size, and may have no end.
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"{kind} {_name(medium)} is no file but a pipe, a socket or a device")
        return status.st_size
    except FileNotFoundError:
        raise InvalidRequest(f"{kind} {_name(medium)} does not exist on this machine") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{kind} {_name(medium)} cannot be read: {error}") from error


def _contents(kind: str, path: str | os.PathLike[str], size: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            # No more than was measured, should it grow.
            return file.read(size)
    except OSError as error:
        raise InvalidRequest(f"{kind} {_name(path)} cannot be read: {error.strerror}") from error


def _name(medium: Media) -> str:
    return f"of {len(medium):,} bytes" if isinstance(medium, bytes) else repr(os.fspath(medium))
