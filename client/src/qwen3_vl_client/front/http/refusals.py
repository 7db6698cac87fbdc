"""A request that is refused before anybody looks at what it asks for; each server tells it in its own form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http import HTTPStatus

from starlette.types import ASGIApp

_MOST_CHARACTERS = 2000


def shortened(text: str) -> str:
    """A text for the caller that repeats what they sent: of a long one, both ends."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"


class RefusedError(Exception):
    """Why, in words for the caller; `code` is the kind of refusal in one word, `param` the field that is wrong."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_seconds)))


Answer = Callable[[RefusedError], ASGIApp]
"""Makes the response to a refusal."""
