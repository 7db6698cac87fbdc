"""How fast places become free: what a refused request is told."""

from __future__ import annotations

import math
import time
from collections import deque

# As many of the latest departures tell the pace.
WINDOW = 32


class Departures:
    """When sessions left the KV cache, in seconds of the system's monotonic clock."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._times: deque[float] = deque(maxlen=WINDOW)

    def add(self) -> None:
        """A session has left."""
        if len(self._times) == WINDOW:
            self._since = self._times[0]
        self._times.append(time.monotonic())

    def seconds_until(self, count: int) -> int:
        """How long the next `count` departures take at the latest pace; at least a second, in whole seconds."""
        pace = (time.monotonic() - self._since) / max(1, len(self._times))
        return max(1, math.ceil(pace * count))
