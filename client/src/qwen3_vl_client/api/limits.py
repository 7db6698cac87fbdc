"""How much one owner may ask for: requests per minute (a token bucket), and requests at the same time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from .errors import ApiError


class RequestLimits:
    """Used by one event loop."""

    def __init__(self, requests_per_minute: int, concurrent_requests: int) -> None:
        self._capacity = requests_per_minute
        self._concurrent = concurrent_requests
        self._buckets: dict[str, tuple[float, float]] = {}
        """By owner: what was left, and when that was."""
        self._running: Counter[str] = Counter()

    def count(self, owner: str) -> None:
        """Counts a request.

        Raises:
            ApiError: 429, the owner sent too many within the minute.
        """
        now = time.monotonic()
        left, since = self._buckets.get(owner, (float(self._capacity), now))
        per_second = self._capacity / 60
        left = min(self._capacity, left + (now - since) * per_second)
        if left < 1:
            raise _too_many(
                f"more than {self._capacity} requests per minute", "rate_limit_exceeded", (1 - left) / per_second
            )
        self._buckets[owner] = (left - 1, now)

    @contextmanager
    def running(self, owner: str) -> Iterator[None]:
        """Holds a place among the owner's requests that run.

        Raises:
            ApiError: 429, all places are taken.
        """
        if self._running[owner] >= self._concurrent:
            raise _too_many(f"{self._concurrent} requests run already", "concurrency_limit_exceeded", 1)
        self._running[owner] += 1
        try:
            yield
        finally:
            self._running[owner] -= 1


def _too_many(what: str, code: str, wait_seconds: float) -> ApiError:
    seconds = max(1, math.ceil(wait_seconds))
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{what}; try again in {seconds} s",
        code=code,
        headers={"retry-after": str(seconds)},
    )
