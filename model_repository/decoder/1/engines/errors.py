"""The one error that a caller sees."""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "invalid_argument",
    "not_found",
    "resource_exhausted",
    "unavailable",
    "deadline_exceeded",
    "cancelled",
    "internal",
]


class RequestError(Exception):
    """Ends one request. Its text starts with the name of a gRPC status code: `invalid_argument: top_p is 2; …`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def invalid_argument(message: str) -> RequestError:
    """The caller's mistake: `message` says what was wrong, with which value, and what is accepted."""
    return RequestError("invalid_argument", message)
