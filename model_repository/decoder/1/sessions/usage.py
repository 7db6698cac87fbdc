"""The cost of a request: seconds spent and waited in each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Timeline:
    """When things happened to a session, in seconds of the system's monotonic clock; None: not yet.

    longest_gap: seconds between two of its tokens at most
    encode_busy, encode_waited: seconds that its chunks were worked on by stage 2, and waited for it
    preprocess: what stage 1 says about itself
    """

    started: float
    planned: float | None = None
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    longest_gap: float = 0.0
    encode_busy: float = 0.0
    encode_waited: float = 0.0
    preprocess: Mapping[str, Any] | None = None

    def add_tokens(self, count: int, now: float) -> list[float]:
        """Notes tokens that came together; returns the seconds between them and the one before, shared evenly."""
        before, self.last_token = self.last_token, now
        if before is None:
            self.first_token, count, before = now, count - 1, now
        gaps = [(now - before) / count for _ in range(count)]
        self.longest_gap = max([self.longest_gap, *gaps])
        return gaps

    def seconds(self, now: float) -> dict[str, Any]:
        """The usage's `seconds`; what did not happen is left out."""
        spans = {
            "waited_for_blocks": (self.planned, self.admitted or now),
            "prefill": (self.admitted, self.first_token or now),
            "generate": (self.first_token, now),
        }
        seconds: dict[str, Any] = {"total": _round(now - self.started)}
        if self.first_token is not None:
            seconds["first_token"] = _round(self.first_token - self.started)
        if self.preprocess is not None:
            seconds["preprocess"] = dict(self.preprocess)
        if self.encode_busy:
            seconds["encode"] = {"busy": _round(self.encode_busy), "waited": _round(self.encode_waited)}
        if self.planned is not None:
            seconds["decoder"] = {
                name: _round(end - begin) for name, (begin, end) in spans.items() if begin is not None
            }
            if self.longest_gap:
                seconds["decoder"]["longest_between_tokens"] = _round(self.longest_gap)
        return seconds


def _round(seconds: float) -> float:
    return round(seconds, 6)
