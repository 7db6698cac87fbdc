"""The page's conversation as the client library wants it: media in place, in the first turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..uploads import StoredFile
from .asked import Question
from .kinds import kind_of


def messages(question: Question, files: Sequence[StoredFile], uri: Callable[[StoredFile], str]) -> list[dict[str, Any]]:
    """Videos and images are named by their paths; a subtitle file goes with the video before it."""
    parts: list[dict[str, Any]] = []
    for stored in files:
        kind, _ = kind_of(stored.name)
        if kind != "subtitle":
            parts.append({"type": kind, "uri": uri(stored)})
    first, *rest = question.turns
    return [
        {"role": first.role, "content": [*parts, {"type": "text", "text": first.text}]},
        *({"role": turn.role, "content": turn.text} for turn in rest),
    ]
