"""JSON bodies: read only after it is known that they are small when parsed, for the gate and for Triton behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NoReturn

from build.serve.gate.envelope import RefusedError

# Strings, and brackets and commas outside them.
MAX_STRUCTURE = 10_000
MAX_DEPTH = 32

# A string may lack its end: it is read once then, and not again from each quotation mark within.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)

_DEEPER = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def read_object(body: bytes) -> dict[str, object]:
    """Raises RefusedError for what is no JSON object in UTF-8, and for one that is deep, long or has a name twice."""
    _check_structure(body)
    try:
        document = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_number)
    except ValueError as error:
        raise RefusedError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RefusedError("the body is not a JSON object")
    return document


def _check_structure(body: bytes) -> None:
    depth = 0
    for structure, match in enumerate(_STRUCTURE.finditer(body)):
        depth += _DEEPER.get(body[match.start()], 0)
        if structure >= MAX_STRUCTURE or depth > MAX_DEPTH:
            raise RefusedError(
                f"the body has more than {MAX_STRUCTURE:,} strings, brackets and commas, or is more than {MAX_DEPTH}"
                " levels deep"
            )


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Readers differ in which of two values they take."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return document


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
