"""The adaptive sampler: as many frames as uniform sampling takes, where things happen.

Of the frames that may be looked at, up to half go to where the change signal stands out most; an eighth to the frames
before the largest of these changes; the rest fills the gaps that are left, longest first, so that no gap exceeds a
bound whatever the signal says. What fills a gap moves a little to a frame that is cheaper to decode.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from preprocess.media.change import CUT, Score
from preprocess.media.key_frames import decode_distances, decoded_late
from preprocess.sampling.mentions import NOTHING_NAMED, Mentions, Span
from preprocess.sampling.spread import spread_order

EVENT_SHARE = 0.5
OTHERS_SHARE = 0.25
"""The least share of the frames for events that go to what is no cut: an hour of fast cuts would take them all."""
BEFORE_SHARE = 0.125
FOCUS_SHARE = 0.5
"""The largest share of all frames for times that the question names, given out before anything else."""
FOCUS_FPS = 4.0
STANDS_OUT = 1.0
"""A change below this score is nothing to look at."""
FRAMES_OF_A_MOMENT = 3
"""Beside each other: however frames are paired to temporal patches, one patch shows that moment and nothing else."""
SAME_EVENT_SECONDS = 0.06
LEEWAY = 0.4
"""How far a frame may move to one that is cheaper to decode, as a share of the distance between frames."""
ROUNDING_DIGITS = 6
ROUNDING = 10.0**-ROUNDING_DIGITS
"""Seconds by which arithmetic may miss a tie: a video that starts later is looked at in the same frames."""


def sample_adaptively(
    seconds: npt.NDArray[np.float64],
    score: Score,
    decode_ranks: npt.NDArray[np.int64],
    key_frames: npt.NDArray[np.bool_],
    count: int,
    focus: Mentions = NOTHING_NAMED,
) -> npt.NDArray[np.int64]:
    """Rising indices of `count` of the frames shown at `seconds`, or of all if there are no more.

    `decode_ranks` says when each is decoded, so that cheap ones can be preferred. `focus`: times that get frames of
    their own. Neighbouring frames are never further apart than `longest_gap`, but for the distance between two
    frames of the video.
    """
    if count >= len(seconds):
        return np.arange(len(seconds))
    if count == 1:
        return np.array([len(seconds) // 2])
    chosen = {0, *_focused(seconds, focus, int(count * FOCUS_SHARE))}
    open_places = count - len(chosen)
    changes = _changes(seconds, score, int(open_places * EVENT_SHARE))
    chosen.update(changes)
    distances = decode_distances(key_frames, decode_ranks)
    leeway = LEEWAY * (seconds[-1] - seconds[0]) / count
    before = _before(changes, seconds, score, decode_ranks, distances, leeway)
    chosen.update([frame for frame in before if frame not in chosen][: int(open_places * BEFORE_SHARE)])
    _fill(chosen, seconds, distances, count)
    return np.array(sorted(chosen))


def longest_gap(duration: float, count: int, *, focused: bool = False) -> float:
    """The bound on the seconds between two of `count` frames over `duration`: what fills gaps, and its leeway."""
    filling = (count - 1) * (1 - FOCUS_SHARE if focused else 1) * (1 - EVENT_SHARE - BEFORE_SHARE)
    return duration / max(filling, 1) * (1 + 2 * LEEWAY)


def _changes(seconds: npt.NDArray[np.float64], score: Score, count: int) -> list[int]:
    """The frames that stand out most, most first, one for each event: cuts, but for the share of what else happens."""
    standing = np.flatnonzero(score >= STANDS_OUT)
    # Equal scores, as all cuts have, in an order that is even over the video however many are taken.
    standing = standing[spread_order(len(standing))]
    cuts, others = standing[score[standing] == CUT], standing[score[standing] < CUT]
    others = others[np.argsort(-score[others], kind="stable")]
    first = count - min(int(count * OTHERS_SHARE), len(others))
    taken: list[int] = []
    blocked = np.zeros(len(score), np.bool_)
    for frame in np.concatenate([cuts[:first], others, cuts[first:]]):
        if len(taken) >= count:
            break
        if blocked[frame]:
            continue
        taken.append(int(frame))
        near = np.searchsorted(seconds, seconds[frame] + np.array([-SAME_EVENT_SECONDS, SAME_EVENT_SECONDS]))
        blocked[near[0] : near[1]] = True
    return taken


def _before(
    changes: Sequence[int],
    seconds: npt.NDArray[np.float64],
    score: Score,
    decode_ranks: npt.NDArray[np.int64],
    distances: npt.NDArray[np.int64],
    leeway: float,
) -> list[int]:
    """For each change a frame before it: of those up to `leeway` seconds before, back to the last cut, the cheapest.

    Never one that is decoded late: it may lie between the change and what it is predicted from, and show either.
    """
    in_order = np.flatnonzero(~decoded_late(decode_ranks))
    cuts = np.flatnonzero(score == CUT)
    frames: list[int] = []
    for change in changes:
        last = int(np.searchsorted(in_order, change))
        shot = cuts[np.searchsorted(cuts, change) - 1] if len(cuts) and cuts[0] < change else 0
        first = max(int(np.searchsorted(seconds, seconds[change] - leeway)), int(shot))
        nearby = in_order[int(np.searchsorted(in_order, first)) : last]
        if len(nearby) == 0:
            nearby = in_order[max(last - 1, 0) : last]
        if len(nearby):
            cheapest = distances[nearby]
            frames.append(int(nearby[np.flatnonzero(cheapest == cheapest.min())[-1]]))
    return frames


def _focused(seconds: npt.NDArray[np.float64], focus: Mentions, count: int) -> list[int]:
    """At most `count` frames: at even distances in the spans, FOCUS_FPS or what `count` in all allow, and in place of
    the one nearest to a moment those around it."""
    # However many are named: of more, not all could be looked at.
    moments = list(dict.fromkeys(focus.moments))[: count // FRAMES_OF_A_MOMENT]
    around = [frames for moment in moments if (frames := _around(seconds, moment))]
    spans = [
        Span(max(span.start, seconds[0]), min(span.end, seconds[-1]))
        for span in focus.spans
        if span.start <= seconds[-1] and span.end >= seconds[0]
    ]
    total = sum(span.end - span.start for span in spans)
    places = count - (FRAMES_OF_A_MOMENT - 1) * len(around)
    fps = min(FOCUS_FPS, places / max(total, 1 / FOCUS_FPS))
    even = {
        int(frame)
        for span in spans
        for frame in np.searchsorted(
            seconds, np.linspace(span.start, span.end, max(int((span.end - span.start) * fps), 1))
        )
    }
    for frames in around:
        even.discard(min(even, key=lambda frame: abs(frame - frames[1]), default=0))
    return list(dict.fromkeys([*chain(*around), *sorted(even)]))[:count]


def _around(seconds: npt.NDArray[np.float64], moment: float) -> range:
    """The FRAMES_OF_A_MOMENT around the one nearest to it; none where it is outside of what is sampled."""
    if not seconds[0] <= moment <= 2 * seconds[-1] - seconds[-2]:
        return range(0)
    middle = int(np.abs(seconds - moment).argmin())
    first = min(max(middle - FRAMES_OF_A_MOMENT // 2, 0), len(seconds) - FRAMES_OF_A_MOMENT)
    return range(first, first + FRAMES_OF_A_MOMENT)


def _fill(chosen: set[int], seconds: npt.NDArray[np.float64], distances: npt.NDArray[np.int64], count: int) -> None:
    """Adds frames to `chosen` until there are `count`, each where the pieces of a gap are longest."""
    edges = [*sorted(chosen), len(seconds)]
    times = np.append(seconds, 2 * seconds[-1] - seconds[-2])
    # A gap's priority is the length of its pieces; one that has no more frames in it is taken out.
    gaps = [(-(times[right] - times[left]), left, right, 1) for left, right in pairwise(edges) if right - left > 1]
    heapq.heapify(gaps)
    pieces: dict[int, tuple[int, int]] = {}
    for _ in range(count - len(chosen)):
        if not gaps:
            break
        _, left, right, parts = heapq.heappop(gaps)
        pieces[left] = (right, parts + 1)
        if parts + 1 < right - left:
            heapq.heappush(gaps, (-(times[right] - times[left]) / (parts + 1), left, right, parts + 1))
    for left, (right, parts) in pieces.items():
        chosen.update(_spread(left, right, parts, times, distances))


def _spread(
    left: int,
    right: int,
    parts: int,
    times: npt.NDArray[np.float64],
    distances: npt.NDArray[np.int64],
) -> list[int]:
    """A frame at each of the `parts - 1` inner edges of equal pieces of the gap, or near it if that is cheaper."""
    ideal = np.linspace(times[left], times[right], parts + 1)[1:-1]
    leeway = LEEWAY * (times[right] - times[left]) / parts
    frames: list[int] = []
    first = left + 1
    for place, time in enumerate(ideal):
        # Room is kept for the frames that follow.
        last = right - len(ideal) + place
        low, high = np.searchsorted(times, [time - leeway - ROUNDING, time + leeway + ROUNDING])
        low, high = min(max(int(low), first), last), max(min(int(high), last + 1), first + 1)
        nearby = np.arange(low, max(high, low + 1))
        cost = distances[nearby]
        cheapest = nearby[cost == cost.min()]
        frame = int(cheapest[np.abs(times[cheapest] - time).round(ROUNDING_DIGITS).argmin()])
        frames.append(frame)
        first = frame + 1
    return frames
