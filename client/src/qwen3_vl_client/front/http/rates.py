"""How often one caller may ask, and how many requests of one caller run at the same time. For one event loop."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from .refusals import RefusedError


class Rates:
    """A token bucket for each name. The table is bounded: of too many names, the one that was silent longest goes.

    `what` is counted, as `count` calls it.
    """

    def __init__(self, per_minute: int, what: str = "requests", most_names: int = 65_536) -> None:
        self.per_minute = per_minute
        self._what = what
        self._most_names = most_names
        self._buckets: dict[str, tuple[float, float]] = {}
        """By name: what was left, and when that was; the one that was used last is last."""

    def count(self, name: str) -> None:
        """Takes one.

        Raises:
            RefusedError: 429, there were too many within the minute.
        """
        if wait_seconds := self.take(name):
            raise too_many(f"more than {self.per_minute} {self._what} per minute", "rate_limit_exceeded", wait_seconds)

    def take(self, name: str) -> float:
        """Takes one, if there is one; otherwise tells in how many seconds there will be one."""
        wait_seconds, left = self._left(name)
        if wait_seconds:
            return wait_seconds
        self._buckets.pop(name, None)
        self._buckets[name] = (left - 1, time.monotonic())
        if len(self._buckets) > self._most_names:
            del self._buckets[next(iter(self._buckets))]
        return 0.0

    def wait_seconds(self, name: str) -> float:
        """In how many seconds there will be one; 0: now."""
        return self._left(name)[0]

    def _left(self, name: str) -> tuple[float, float]:
        now = time.monotonic()
        left, since = self._buckets.get(name, (float(self.per_minute), now))
        per_second = self.per_minute / 60
        left = min(self.per_minute, left + (now - since) * per_second)
        return (1 - left) / per_second if left < 1 else 0.0, left


class RequestLimits:
    """How much one owner may ask for: requests per minute, and requests at the same time."""

    def __init__(self, requests_per_minute: int, concurrent_requests: int) -> None:
        self._rates = Rates(requests_per_minute)
        self._concurrent = concurrent_requests
        self._running: Counter[str] = Counter()

    def count(self, owner: str) -> None:
        """Counts a request.

        Raises:
            RefusedError: 429, the owner sent too many within the minute.
        """
        self._rates.count(owner)

    @contextmanager
    def running(self, owner: str) -> Iterator[None]:
        """Holds a place among the owner's requests that run.

        Raises:
            RefusedError: 429, all places are taken.
        """
        if self._running[owner] >= self._concurrent:
            raise too_many(f"{self._concurrent} requests run already", "concurrency_limit_exceeded", 1)
        self._running[owner] += 1
        try:
            yield
        finally:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]


def too_many(what: str, code: str, wait_seconds: float) -> RefusedError:
    """A refusal, 429, that tells when to come back."""
    seconds = max(1, math.ceil(wait_seconds))
    return RefusedError(
        HTTPStatus.TOO_MANY_REQUESTS, f"{what}; try again in {seconds} s", code=code, retry_after_seconds=seconds
    )


def caller(client: tuple[str, int] | None) -> str:
    """The sender at an address, as far as addresses tell: a household has 2^64 of IPv6."""
    if client is None:
        return "unknown"
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return client[0]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
