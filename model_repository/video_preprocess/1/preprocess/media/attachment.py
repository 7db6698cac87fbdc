"""An attachment: a video or an image that came with a request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["video", "image"]


@dataclass(frozen=True)
class Attachment:
    """A video or an image; `name` is what errors call it."""

    kind: Kind
    name: str
    source: bytes | str | Path
    """Encoded bytes, a path below the media root, or (Path) a file that was found already."""
    subtitles: bytes | None = None
    """A subtitle file that came with a video."""

    def __repr__(self) -> str:
        return f"Attachment({self.name})"
