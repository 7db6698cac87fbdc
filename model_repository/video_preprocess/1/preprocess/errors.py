"""The errors of a request: messages for the caller, led by a gRPC status code in lower case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EMFILE, ENFILE, ENOMEM, ENOSPC

_EXHAUSTED = (EAGAIN, EMFILE, ENFILE, ENOMEM, ENOSPC)
"""The errors of calls that make files or processes, where the machine has no more to give."""


class RequestError(Exception):
    """Ends a request with a message that is meant for its caller."""

    code = "internal"

    def __str__(self) -> str:
        return f"{self.code}: {super().__str__()}"


class InvalidArgumentError(RequestError):
    code = "invalid_argument"


class NotFoundError(RequestError):
    code = "not_found"


class ResourceExhaustedError(RequestError):
    code = "resource_exhausted"


class UnavailableError(RequestError):
    code = "unavailable"


class DeadlineExceededError(RequestError):
    code = "deadline_exceeded"


def shown(value: object) -> str:
    """A caller's value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


@contextmanager
def machine_resources() -> Iterator[None]:
    """Around what opens files: where the machine has no more to give, the error says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in _EXHAUSTED:
            raise
        raise ResourceExhaustedError(
            f"the machine has no more to open files with ({error.strerror}); retry later"
        ) from error
