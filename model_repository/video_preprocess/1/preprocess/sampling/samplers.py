"""Samplers: which frames of a video are looked at.

A sampler is a function from what the container says about a video (Timeline) and the bounds of the request
(SamplingBounds) to rising frame indices; it decodes nothing. `SAMPLERS` has those that `video_options.sampler` accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.media.timeline import Timeline
from preprocess.sampling.adaptive import sample_adaptively
from preprocess.sampling.mentions import NOTHING_NAMED, Mentions


@dataclass(frozen=True)
class SamplingBounds:
    fps: float
    """Frames per second of the video that are looked at, between the bounds on their number."""
    min_frames: int
    max_frames: int
    start_seconds: float | None = None
    end_seconds: float | None = None
    focus: Mentions = NOTHING_NAMED
    """The times that the question names, which get frames of their own."""


FrameIndices = npt.NDArray[np.int64]
"""`[sampled frames]`, rising; an index that repeats is a frame that is shown again."""
Sampler = Callable[[Timeline, SamplingBounds], FrameIndices]


def uniform(timeline: Timeline, bounds: SamplingBounds) -> FrameIndices:
    """Evenly spaced frames: for a constant rate those of `Qwen3VLVideoProcessor.sample_frames`.

    A variable rate is sampled evenly in time: what the frame's index is to the reference, a fractional index that
    follows the true times is here.
    """
    first, last = _between(timeline, bounds)
    total = last - first
    sampled = _frame_count(timeline, first, last, bounds)
    if timeline.rate is not None:
        fractional = np.linspace(0, total - 1, sampled)
    else:
        times = timeline.seconds[first:last]
        # Rounded first, so that what lies half-way between two frames but for an error of arithmetic is a tie here too.
        fractional = np.interp(np.linspace(times[0], times[-1], sampled), times, np.arange(total)).round(6)
    return first + fractional.round().astype(np.int64)


def adaptive(timeline: Timeline, bounds: SamplingBounds) -> FrameIndices:
    """As many frames as `uniform` takes, dense where the picture changes and where the question looks."""
    first, last = _between(timeline, bounds)
    return first + sample_adaptively(
        timeline.seconds[first:last],
        timeline.changes[first:last],
        timeline.decode_ranks[first:last],
        timeline.key_frames[first:last],
        _frame_count(timeline, first, last, bounds),
        bounds.focus,
    )


def _between(timeline: Timeline, bounds: SamplingBounds) -> tuple[int, int]:
    """The frames that are shown between the bounds, at least one: first, and one past the last."""
    times = timeline.seconds
    first, last = 0, len(times)
    if bounds.start_seconds is not None:
        first = max(int(np.searchsorted(times, bounds.start_seconds, side="right")) - 1, 0)
    if bounds.end_seconds is not None:
        last = int(np.searchsorted(times, bounds.end_seconds, side="right"))
    return first, max(last, first + 1)


def _frame_count(timeline: Timeline, first: int, last: int, bounds: SamplingBounds) -> int:
    total = last - first
    if timeline.rate is not None:
        seconds = total / float(timeline.rate)
    else:
        ends = np.append(timeline.seconds, timeline.end_seconds)
        seconds = ends[last] - ends[first]
    return min(max(int(seconds * bounds.fps), bounds.min_frames), bounds.max_frames, total)


SAMPLERS: dict[str, Sampler] = {"adaptive": adaptive, "uniform": uniform}
