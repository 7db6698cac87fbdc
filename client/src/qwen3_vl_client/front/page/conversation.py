"""The page's conversation as the client library wants it: media in place, in the first turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InvalidRequest
from ...media import check_subtitles
from ...uploads import StoredFile
from .asked import Question
from .kinds import kind_of


def messages(question: Question, files: Sequence[StoredFile], uri: Callable[[StoredFile], str]) -> list[dict[str, Any]]:
    """Videos and images are named by their paths. Subtitle files go with the videos, in order."""
    lines = []
    for stored in files:
        if kind_of(stored.name)[0] == "subtitle":
            check_subtitles(f"the subtitle file {stored.name!r}", stored.size_bytes)
            lines.append(stored.path)
    parts: list[dict[str, Any]] = []
    for stored in files:
        kind, _ = kind_of(stored.name)
        if kind != "subtitle":
            parts.append({"type": kind, "uri": uri(stored)})
        if kind == "video" and lines:
            parts[-1]["subtitles"] = lines.pop(0)
    if lines:
        raise InvalidRequest("there are more subtitle files than videos; one for each is accepted")
    first, *rest = question.turns
    return [
        {"role": first.role, "content": [*parts, {"type": "text", "text": first.text}]},
        *({"role": turn.role, "content": turn.text} for turn in rest),
    ]
