"""Whether something grows: a slope with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BLOCKS = 20
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Trend:
    """Growth in percent of the median per 1,000 requests, with the bounds of its 95 % confidence interval."""

    percent: float
    low: float
    high: float

    @property
    def distinguishable(self) -> float:
        """The growth, or 0 where the interval contains 0."""
        return 0.0 if self.low <= 0 <= self.high else self.percent


def trend(requests: Sequence[float], values: Sequence[float]) -> Trend:
    """The Theil-Sen slope (Sen 1968) of `values` over the number of `requests` that had ended.

    Neighbouring samples resemble each other, which would make the interval too narrow: the slope is that of the medians
    of 20 equal blocks. Raises ValueError for fewer samples than blocks.
    """
    if len(values) < BLOCKS:
        raise ValueError(f"{len(values)} samples; {BLOCKS} or more are accepted")
    xs = [float(np.median(block)) for block in np.array_split(np.asarray(requests, float), BLOCKS)]
    ys = [float(np.median(block)) for block in np.array_split(np.asarray(values, float), BLOCKS)]
    if len(set(ys)) == 1:
        return Trend(0.0, 0.0, 0.0)
    slope = stats.theilslopes(ys, xs, CONFIDENCE)
    scale = 1000 * 100 / float(np.median(ys)) if np.median(ys) else 0.0
    return Trend(*(float(value) * scale for value in (slope.slope, slope.low_slope, slope.high_slope)))
