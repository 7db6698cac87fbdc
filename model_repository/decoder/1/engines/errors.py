"""The one error that a caller sees: a status code and a message."""

from __future__ import annotations

from typing import Literal, get_args

Code = Literal[
    "invalid_argument",
    "not_found",
    "resource_exhausted",
    "unavailable",
    "deadline_exceeded",
    "cancelled",
    "internal",
]
CODES: tuple[Code, ...] = get_args(Code)


class RequestError(Exception):
    """Ends one request. Callers see its text, code and message: `invalid_argument: top_p is 2; …`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def invalid_argument(message: str) -> RequestError:
    """The caller's mistake: `message` says what was wrong, with which value, and what is accepted."""
    return RequestError("invalid_argument", message)
