"""The kind of an uploaded file, by the name that its user gave it. The server looks at its content."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...errors import InvalidRequest

Kind = Literal["video", "image", "subtitle"]

_TYPES: dict[str, tuple[Kind, str]] = {
    ".mp4": ("video", "video/mp4"),
    ".m4v": ("video", "video/mp4"),
    ".mov": ("video", "video/mp4"),
    ".mkv": ("video", "video/x-matroska"),
    ".webm": ("video", "video/webm"),
    ".avi": ("video", "video/x-msvideo"),
    ".png": ("image", "image/png"),
    ".jpg": ("image", "image/jpeg"),
    ".jpeg": ("image", "image/jpeg"),
    ".webp": ("image", "image/webp"),
    ".gif": ("image", "image/gif"),
    ".bmp": ("image", "image/bmp"),
    ".srt": ("subtitle", "text/plain"),
    ".vtt": ("subtitle", "text/vtt"),
    ".ass": ("subtitle", "text/plain"),
    ".ssa": ("subtitle", "text/plain"),
}
ACCEPTED = "MP4, MOV, MKV, WebM, AVI, PNG, JPEG, WebP, GIF, BMP, SRT, VTT, ASS"


def kind_of(name: str) -> tuple[Kind, str]:
    """Its kind and media type. Raises InvalidRequest for another suffix."""
    suffix = Path(name).suffix.lower()
    if suffix not in _TYPES:
        raise InvalidRequest(f"{name!r} ends in {suffix!r}; {ACCEPTED} are accepted")
    return _TYPES[suffix]
