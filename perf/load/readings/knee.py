"""Where latency takes off."""

from __future__ import annotations

from collections.abc import Sequence

FACTOR = 2.0


def knee(points: Sequence[tuple[float, float]]) -> float | None:
    """The highest load before the latency first exceeds twice that at the lowest load; None without points.

    `points`: (load, latency in seconds), in any order. A latency that never does has its knee beyond the highest load,
    which is returned.
    """
    ordered = sorted(points)
    if not ordered:
        return None
    limit = FACTOR * ordered[0][1]
    before = ordered[0][0]
    for load, latency in ordered:
        if latency > limit:
            break
        before = load
    return before
