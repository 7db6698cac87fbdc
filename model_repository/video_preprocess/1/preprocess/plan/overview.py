"""The overview: the plan, and where each video changes, for a request that asks for nothing more."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.media.change import CUT
from preprocess.media.timeline import Timeline
from preprocess.media.video import Video
from preprocess.plan.plan import Plan
from preprocess.settings import Settings

CHANGE_BINS = 512
"""Into so many equal spans a video is divided, and its change signal told as the largest in each."""
_CUTS_APART_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_HALF_SPREADS = 4.0
"""A picture that stands out by so many spreads is half-way to a cut."""


def overview(plan: Plan, settings: Settings) -> dict[str, Any]:
    """The plan's token counts and media; `wanted_tokens` is what the prompt would have if the context had room for it.

    Videos have more keys.
    `seconds` is when the last frame is no longer shown; `cuts` are the times of new scenes, a second apart at least;
    `changes` has a number from 0 (nothing stands out) to 1 (a cut) for each of `CHANGE_BINS` spans of 0 to `seconds`;
    `pauses` are starts and ends of the times without a subtitle line, if there are lines.
    """
    summary = plan.summary(settings)
    media = [
        medium if video is None else {**medium, **_changes(video.timeline), "pauses": _pauses(video)}
        for medium, video in zip(summary["media"], (shown.video for shown in plan.selections), strict=True)
    ]
    return {
        "prompt_tokens": summary["prompt_tokens"],
        "wanted_tokens": plan.wanted_tokens,
        "context_length": settings.context_length,
        "video_tokens": summary["video_tokens"],
        "media": media,
    }


def _changes(timeline: Timeline) -> dict[str, Any]:
    scores = np.clip(timeline.changes, 0, np.finfo(np.float32).max)
    heights = scores / (scores + _HALF_SPREADS)
    bins = np.minimum((timeline.seconds / timeline.end_seconds * CHANGE_BINS).astype(int), CHANGE_BINS - 1)
    changes = np.zeros(CHANGE_BINS)
    np.maximum.at(changes, np.maximum(bins, 0), heights)
    return {
        "seconds": round(timeline.end_seconds, 3),
        "cuts": _apart(timeline.seconds[timeline.changes == CUT]),
        "changes": changes.round(3).tolist(),
    }


def _pauses(video: Video) -> list[tuple[float, float]]:
    pauses: list[tuple[float, float]] = []
    if not video.lines:
        return pauses
    said_until = 0.0
    for line in video.lines:
        if line.start - said_until >= _PAUSE_SECONDS:
            pauses.append((said_until, line.start))
        said_until = max(said_until, line.end)
    if video.timeline.end_seconds - said_until >= _PAUSE_SECONDS:
        pauses.append((said_until, video.timeline.end_seconds))
    return pauses


def _apart(seconds: npt.NDArray[np.float64]) -> list[float]:
    """The first of them, and each that comes late enough after the last that is kept."""
    kept: list[float] = []
    for time in seconds.tolist():
        if not kept or time - kept[-1] >= _CUTS_APART_SECONDS:
            kept.append(time)
    return kept
