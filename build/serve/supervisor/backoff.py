"""When to repair a thing that keeps breaking."""


class Backoff:
    """How long to wait before the next repair of a thing: nothing at first, then doubling while it keeps breaking."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._repairs = 0
        self._last_due = 0.0

    def next_due(self, now: float) -> float:
        """When to repair what was found broken `now`."""
        if now - self._last_due > self._max_seconds:
            self._repairs = 0
        delay_seconds = 2.0 ** (self._repairs - 1) if self._repairs else 0.0
        self._repairs += 1
        self._last_due = now + min(delay_seconds, self._max_seconds)
        return self._last_due
