"""What a session says to its client, and the way there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engines.errors import RequestError


@dataclass(frozen=True)
class Response:
    """usage, progress: JSON; empty ones are left out."""

    text: str = ""
    finish_reason: str = ""
    usage: str = ""
    progress: str = ""


class Reply(Protocol):
    """The answers to one request. Nothing follows a final response, an error or `close`."""

    def send(self, response: Response, *, final: bool = False) -> None:
        """Sends a response."""

    def fail(self, error: RequestError) -> None:
        """Ends the request with an error."""

    def close(self) -> None:
        """Ends the request without a response."""
