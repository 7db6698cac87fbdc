"""JSON bodies within bounds: read piece by piece, counted before they are parsed, parsed beside the event loop."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from .refusals import RefusedError

MIB = 2**20
# So much of each body is not counted: where all memory is taken, short requests still find room.
_FREE_BYTES = 64 * 1024
# The most memory that a value takes once it is parsed.
_BYTES_PER_VALUE = 128
_RETRY_SECONDS = 5.0
_MARKS = (b",", b":", b"[", b"{")
# No value begins with these: such a comma is within a text, as before each JPEG file of a list of frames, `,/9j/`.
_NO_MARKS = (b",/", b",\\")
_MOST_KEYS = 1024
"""An object may have so many. All that are wrong become errors, of which one is told."""

Model = TypeVar("Model", bound=BaseModel)


class InvalidBodyError(Exception):
    """JSON, but not of the form that is asked for; `first` is the first of pydantic's errors."""

    def __init__(self, first: ErrorDetails, body: Any) -> None:
        super().__init__(first["msg"])
        self.first = first
        self.body = body


class HeldBodies:
    """The memory that bodies hold, of all requests that run."""

    def __init__(self, max_bytes: int) -> None:
        """One owner may hold half of it."""
        self._max_bytes = max_bytes
        self._held: Counter[str] = Counter()

    @contextmanager
    def holding(self, owner: str) -> Iterator[Holding]:
        """The memory that one request holds, until the block ends."""
        holding = Holding(self, owner)
        try:
            yield holding
        finally:
            self._held[owner] -= holding.held
            if not self._held[owner]:
                del self._held[owner]

    def hold(self, owner: str, size: int) -> None:
        """Raises `RefusedError`, 503: there is no room."""
        if self._held.total() + size > self._max_bytes or self._held[owner] + size > self._max_bytes // 2:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the bodies of the requests that run hold {self._max_bytes:,} bytes together, or half of that is one "
                f"owner's; try again in {_RETRY_SECONDS:g} s",
                code="bodies_too_large",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._held[owner] += size


class Holding:
    """The memory of one request's body."""

    def __init__(self, all_bodies: HeldBodies, owner: str) -> None:
        self._all = all_bodies
        self._owner = owner
        self._size = 0
        self.held = 0
        """Bytes that count."""

    def add(self, size: int) -> None:
        """Raises `RefusedError`, 503: there is no room for so much more."""
        self._size += size
        counts = max(0, self._size - _FREE_BYTES)
        if counts > self.held:
            self._all.hold(self._owner, counts - self.held)
            self.held = counts


async def read_json(
    pieces: AsyncIterator[bytes],
    headers: Mapping[str, str],
    model: type[Model],
    *,
    max_bytes: int,
    max_values: int,
    holding: Holding,
    hint: str = "",
) -> Model:
    """The model that a body holds. A body that is refused is read no further.

    Args:
        headers: the request's, by their names in lower case.
        hint: what else to do with a body that is too large.

    Raises:
        RefusedError: 400, it is no JSON, or of too many values; 413, it is too large; 503, there is no room for it.
        InvalidBodyError: it is JSON, but not of that form.
    """
    _check_type(headers.get("content-type", ""))
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes, hint)
    body, values = bytearray(), 0
    async for piece in pieces:
        body += piece
        if len(body) > max_bytes:
            raise _too_large(max_bytes, hint)
        marks = sum(map(piece.count, _MARKS)) - sum(map(piece.count, _NO_MARKS))
        values += marks
        if values > max_values:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST,
                f"the body has more than {max_values:,} values; its commas, colons and opening brackets are counted",
                code="too_many_values",
            )
        holding.add(len(piece) + _BYTES_PER_VALUE * marks)
    if len(body) > _FREE_BYTES:
        return await asyncio.to_thread(_parse, body, model)
    return _parse(body, model)


def _check_type(content_type: str) -> None:
    # A page of another site cannot send this one without being asked first.
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise RefusedError(
            HTTPStatus.BAD_REQUEST,
            f"the content-type is {content_type!r}; application/json is accepted",
            code="invalid_argument",
        )


def _too_large(max_bytes: int, hint: str) -> RefusedError:
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {max_bytes:,} bytes{hint and f'; {hint}'}",
        code="request_entity_too_large",
    )


def _parse(body: bytearray, model: type[Model]) -> Model:
    try:
        # Half a surrogate, NaN and deep nesting are errors to it.
        value = from_json(body, allow_inf_nan=False)
        _check(value)
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}", code="invalid_argument") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidBodyError(error.errors(include_url=False)[0], value) from None


def _check(value: Any) -> None:
    """Raises ValueError for a number that no float holds, 1e999; RefusedError for an object with too many keys."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            if len(value) > _MOST_KEYS:
                raise RefusedError(
                    HTTPStatus.BAD_REQUEST,
                    f"an object of the body has {len(value):,} keys; at most {_MOST_KEYS:,} are accepted",
                    code="too_many_values",
                )
            waiting.extend(value.values())
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("it has a number beyond 1.8e308")
