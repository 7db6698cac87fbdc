"""The form that a request's answer must have: `response_format` in OpenAI's words, and a regular expression beside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# A schema or an expression of someone who means well has a few thousand.
MAX_CHARACTERS = 65_536

# OpenAI's, beside a schema. They change nothing: a schema is always kept to.
IGNORED_KEYS = ("name", "description", "strict")

ACCEPTED = (
    'one of {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {…}}}'
    ' and {"type": "regex", "regex": "…"}'
)


@dataclass(frozen=True)
class ResponseFormat:
    """grammar: the JSON schema as text, or the regular expression."""

    kind: Literal["json_schema", "regex"]
    grammar: str


class ResponseFormatError(ValueError):
    """Says what is wrong with a `response_format`, and what is accepted."""


def parse_response_format(value: Any) -> ResponseFormat | None:
    """The format that a JSON value asks for; None for free text.

    Raises ResponseFormatError for another shape, unknown keys, and a schema or expression that is too long.
    """
    match value:
        case {"type": "text", **rest}:
            _refuse(rest)
            return None
        case {"type": "json_object", **rest}:
            _refuse(rest)
            return ResponseFormat("json_schema", '{"type": "object"}')
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema, **beside}, **rest}:
            _refuse(rest | {key: value for key, value in beside.items() if key not in IGNORED_KEYS})
            return ResponseFormat("json_schema", _bounded(json.dumps(schema)))
        case {"type": "regex", "regex": str() as regex, **rest}:
            _refuse(rest)
            return ResponseFormat("regex", _bounded(regex))
    raise ResponseFormatError(f"{ACCEPTED} is accepted")


def _refuse(unknown: Mapping[Any, Any]) -> None:
    if unknown:
        raise ResponseFormatError(f"it has an unknown {', '.join(sorted(unknown))}; {ACCEPTED} is accepted")


def _bounded(grammar: str) -> str:
    if len(grammar) > MAX_CHARACTERS:
        raise ResponseFormatError(
            f"its schema or expression has {len(grammar)} characters; at most {MAX_CHARACTERS} are accepted"
        )
    return grammar
