"""The change signal off packet sizes: what stands out, whatever the bitrate and the kind of frame."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.media.change import CUT, packet_score, standing_out

FRAMES = 400


def stream(key_frames: list[int], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, key frames and decode ranks of a stream of P-frames with three B-frames before each."""
    rng = np.random.default_rng(seed)
    keys = np.zeros(FRAMES, bool)
    keys[key_frames] = True
    in_order = keys.copy()
    in_order[3::4] = True
    ranks = np.zeros(FRAMES, np.int64)
    waiting: list[int] = []
    rank = 0
    for frame in range(FRAMES):
        waiting.append(frame)
        if in_order[frame] or frame == FRAMES - 1:
            for shown in [waiting[-1], *waiting[:-1]]:
                ranks[shown] = rank
                rank += 1
            waiting = []
    sizes = np.where(in_order, 5000, 600) * rng.uniform(0.8, 1.2, FRAMES)
    sizes[keys] = 60_000
    return sizes.astype(np.int64), keys, ranks


@pytest.mark.parametrize("rate", [0.2, 1, 30])
@pytest.mark.parametrize("frame", [203, 201])
def test_finds_the_frame_that_cost_more_than_its_like(frame: int, rate: float) -> None:
    sizes, keys, ranks = stream([0])
    assert ranks[203] < ranks[201]
    sizes[frame] = 4000 if frame == 201 else 20_000
    score = packet_score((sizes * rate).astype(np.int64), keys, ranks)
    assert score.argmax() == frame
    assert score[frame] > 2 * np.delete(score, frame).max()


def test_a_key_frame_before_its_time_is_a_cut_and_a_due_one_is_not() -> None:
    sizes, keys, ranks = stream([0, 100, 200, 237, 337])
    assert np.flatnonzero(packet_score(sizes, keys, ranks) == CUT).tolist() == [237]


def test_only_key_frames_are_compared_with_each_other() -> None:
    sizes = np.random.default_rng(0).integers(49_000, 51_000, 60)
    sizes[30:] += 40_000
    assert packet_score(sizes, np.ones(60, bool), np.arange(60)).argmax() == 30


def test_what_is_usual_around_does_not_stand_out() -> None:
    rng = np.random.default_rng(1)
    still, restless = rng.uniform(90, 110, 200), rng.uniform(2000, 8000, 200)
    still[100] = 600
    score = standing_out(np.concatenate([still, restless]))
    assert score.argmax() == 100
    # Where the scene changes its manner, a few frames stand out; the median takes over within its window.
    assert score[100] > 2 * score[216:].max()


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_short_streams(length: int) -> None:
    assert standing_out(np.full(length, 7)).tolist() == [0] * length
