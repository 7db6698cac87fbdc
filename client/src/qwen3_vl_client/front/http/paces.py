"""How fast one side of a connection sends or reads, against a rate that it must keep up with on average."""

from __future__ import annotations


class Pace:
    """Whoever pauses falls behind; whoever is faster catches up, but gets no further ahead than the rate itself."""

    def __init__(self, most_seconds: float, least_rate: float) -> None:
        """It may be `most_seconds` behind `least_rate`, bytes per second."""
        self._most_seconds = most_seconds
        self._least_rate = least_rate
        self.begin()

    def begin(self) -> None:
        """Forgets what was."""
        self.seconds = 0.0
        """That it had."""
        self._bytes = 0
        self._behind_seconds = 0.0

    def move(self, size: int) -> None:
        """So many bytes were sent, or read."""
        self._bytes += size
        self._behind_seconds = max(0.0, self._behind_seconds - size / self._least_rate)

    def keeps_up(self, elapsed: float) -> bool:
        """After so many seconds more; time in which it could do nothing is not told."""
        self.seconds += elapsed
        self._behind_seconds += elapsed
        return self._behind_seconds <= self._most_seconds

    @property
    def rate(self) -> float:
        """Bytes per second; 0 before any time has passed."""
        return self._bytes / self.seconds if self.seconds else 0.0
