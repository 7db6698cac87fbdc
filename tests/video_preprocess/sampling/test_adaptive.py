"""Adaptive sampling: the number of frames is kept, no gap exceeds its bound, and what happens is seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.media.change import CUT
from preprocess.sampling.adaptive import LEEWAY, longest_gap, sample_adaptively
from preprocess.sampling.mentions import NOTHING_NAMED, Mentions, Span

FPS = 25


def sample(score: np.ndarray, count: int, *, key_interval: int = 250, focus: Mentions = NOTHING_NAMED) -> np.ndarray:
    """Samples a stream without B-frames."""
    frames = np.arange(len(score))
    return sample_adaptively(frames / FPS, score.astype(np.float32), frames, frames % key_interval == 0, count, focus)


@given(
    frames=st.integers(1, 3000),
    count=st.integers(1, 400),
    events=st.floats(0, 1),
    key_interval=st.sampled_from([1, 12, 250, 10_000]),
    seed=st.integers(0, 1000),
)
def test_takes_as_many_as_asked_and_leaves_no_gap(
    frames: int, count: int, events: float, key_interval: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    score = np.where(rng.random(frames) < events, rng.uniform(0, 100, frames), 0)
    chosen = sample(score, count, key_interval=key_interval)
    assert len(chosen) == min(count, frames)
    assert (np.diff(chosen) > 0).all()
    assert 0 <= chosen[0] <= chosen[-1] < frames
    if count > 1:
        times = np.append(chosen, frames) / FPS
        assert np.diff(times).max() <= longest_gap(frames / FPS, count) + 1 / FPS


def test_a_gap_bound_holds_where_all_that_happens_is_at_one_end() -> None:
    score = np.zeros(10_000)
    score[:2000] = 50
    chosen = sample(score, 100)
    assert np.diff(np.append(chosen, 10_000)).max() / FPS <= longest_gap(400, 100)


def test_every_cut_is_seen_from_both_sides() -> None:
    score = np.random.default_rng(0).uniform(0, 5, 7500)
    cuts = np.arange(377, 7500, 401)
    score[cuts] = CUT
    chosen = sample(score, 256)
    assert set(cuts.tolist()) <= set(chosen.tolist())
    before = chosen[np.searchsorted(chosen, cuts) - 1]
    assert ((cuts - before) / FPS).max() <= LEEWAY * 300 / 256


def test_the_side_before_is_the_frame_from_which_the_change_was_predicted() -> None:
    frames = np.arange(400)
    # Three B-frames, decoded after the P-frame that follows them.
    ranks = np.where(frames % 4 == 0, frames - 3, frames + 1).clip(0)
    score = np.zeros(400, np.float32)
    score[200] = CUT
    chosen = sample_adaptively(frames / FPS, score, ranks, frames == 0, 100)
    assert {196, 200} <= set(chosen.tolist())


def test_the_side_before_is_a_cheap_frame_of_the_shot_that_ends() -> None:
    score = np.zeros(20_000)
    score[[5090, 10_100]] = CUT
    chosen = sample(score, 40, key_interval=100).tolist()
    # 20 s between frames: up to 8 s before the cut.
    assert {5000, 5090, 10_000, 10_100} <= set(chosen)


def test_largest_changes_come_first_and_each_counts_once() -> None:
    score = np.zeros(5000)
    score[1000:1002] = (30, 40)
    score[2000] = 20
    score[3000:5000:20] = 3
    chosen = sample(score, 40)
    assert {1001, 2000} <= set(chosen.tolist())


def test_more_cuts_than_places_are_taken_evenly() -> None:
    score = np.zeros(50_000)
    score[::100] = CUT
    chosen = sample(score, 200)
    cuts = chosen[chosen % 100 == 0]
    halves = np.histogram(cuts, bins=4, range=(0, 50_000))[0]
    assert halves.max() <= 1.5 * halves.min()


def test_what_fills_a_gap_moves_to_a_key_frame_nearby() -> None:
    chosen = sample(np.zeros(20_000), 80, key_interval=250)
    assert (chosen % 250 == 0).mean() > 0.6


def test_named_times_get_frames_of_their_own() -> None:
    plain = sample(np.zeros(50_000), 100)
    focused = sample(np.zeros(50_000), 100, focus=Mentions((Span(1000, 1010),)))

    def inside(chosen: np.ndarray) -> int:
        return int(((chosen >= 25_000) & (chosen <= 25_250)).sum())

    assert inside(plain) <= 2
    assert 39 <= inside(focused) <= 42
    assert len(focused) == 100
    assert np.diff(np.append(focused, 50_000)).max() / FPS <= longest_gap(2000, 100, focused=True)


@pytest.mark.parametrize(
    "focus",
    [
        Mentions((Span(5, 5),)),
        Mentions((Span(0, 0), Span(39, 40))),
        Mentions((Span(0, 1), Span(2, 3), Span(4, 5))),
        Mentions((Span(0, 10),), (5.0, 5.04, 7.0, 0.0, 39.98)),
        Mentions((Span(0, 40),), tuple(np.arange(100) / 2)),
    ],
)
def test_any_focus_keeps_the_number(focus: Mentions) -> None:
    for count in range(1, 30):
        assert len(sample(np.zeros(1000), count, focus=focus)) == count


@given(count=st.integers(8, 60), moment=st.floats(0, 39.96), seed=st.integers(0, 1000))
def test_of_all_temporal_patches_the_one_nearest_to_a_moment_shows_nothing_else(
    count: int, moment: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    score = np.where(rng.random(1000) < 0.05, rng.uniform(0, 100, 1000), 0)
    chosen = sample(score, count, focus=Mentions((Span(max(moment - 5, 0), min(moment + 5, 40)),), (moment,)))
    pairs = np.append(chosen, chosen[-1:].repeat(len(chosen) % 2)).reshape(-1, 2) / FPS
    nearest = pairs[np.abs(pairs.mean(1) - moment).argmin()]
    assert (np.abs(nearest - moment) <= 1.5 / FPS + 1e-6).all()


def test_an_hour_of_fast_cuts_leaves_places_for_what_else_happens() -> None:
    score = np.zeros(3600 * FPS)
    score[FPS::FPS] = CUT
    events = np.arange(1010, len(score), 4507)
    score[events] = 40
    chosen = sample(score, 200)
    assert set(events.tolist()) <= set(chosen.tolist())
    cuts = chosen[score[chosen] == CUT] / FPS
    assert len(cuts) >= 200 // 2 * 3 // 4
    assert np.diff(cuts).max() < 4 * 3600 / len(cuts)
