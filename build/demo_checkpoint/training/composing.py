"""Training videos composed of slices of the pool's videos, with times of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from build.demo_checkpoint.model import VisionTower, patchify
from build.demo_checkpoint.training.pool import BETWEEN_SCENES, NOTHING, Views
from build.demo_checkpoint.world.questions import Line
from build.demo_checkpoint.world.wording import Language
from build.demo_checkpoint.world.world import CELLS, THINGS

MOST_LINES = 4
"""Subtitle lines of a video at most."""
DRAWN_OUT = 0.5
"""The share of the scattered videos that have scenes of tens of seconds (see `scatter`)."""
LONGEST_SCENE_SECONDS = 60.0
"""The longest scene of those that are drawn out."""
LONGEST_SECONDS = 16.0
"""No video of the training is longer; what is longer is looked at more often (see `DENSE`)."""


@dataclass(frozen=True)
class Bank:
    """The tower's packed rows `[videos, patches, 6, width]` for the pool's videos, with their truth (see `Views`)."""

    rows: Tensor
    cells: np.ndarray
    scenes: np.ndarray
    seconds: np.ndarray

    def part(self, videos: slice) -> Bank:
        return Bank(self.rows[videos], self.cells[videos], self.scenes[videos], self.seconds[videos])


@torch.inference_mode()
def make_bank(tower: VisionTower, views: Views, device: torch.device) -> Bank:
    videos, patches = views.cells.shape[:2]
    frames = torch.from_numpy(views.frames).flatten(0, 1)
    with torch.autocast(device.type, torch.bfloat16):
        rows = [tower(patchify(part.to(device))).to("cpu", torch.bfloat16) for part in frames.split(128)]
    return Bank(torch.cat(rows).view(videos, patches, CELLS, -1), views.cells, views.scenes, views.seconds)


@dataclass(frozen=True)
class Composed:
    """A training video: where in the bank its rows are, its truth, and its times as the slices have them."""

    videos: np.ndarray
    patches: np.ndarray
    cells: np.ndarray
    scenes: np.ndarray
    seconds: np.ndarray


def compose(bank: Bank, length: int, rng: np.random.Generator) -> Composed:
    """Slices of random videos, one after the other, `length` temporal patches in all; what one ends with, the next
    does not show."""
    videos: list[int] = []
    patches: list[int] = []
    scenes: list[int] = []
    seconds: list[float] = []
    total, per_video = bank.cells.shape[:2]
    whole = rng.random() < 0.4
    while len(videos) < length:
        video = int(rng.integers(total))
        take = min(length - len(videos), per_video if whole else int(rng.integers(2, per_video + 1)))
        start = 0 if whole else int(rng.integers(per_video - take + 1))
        span = np.arange(start, start + take)
        numbers = bank.scenes[video][span].astype(int)
        # The two scenes at the joint must have nothing in common, as in any video of the world.
        if (
            videos
            and np.intersect1d(
                _things(bank.cells[videos, patches], np.array(scenes), -1), _things(bank.cells[video][span], numbers, 0)
            ).size
        ):
            continue
        offset = max(scenes, default=-1) + 1 - min(numbers[numbers >= 0], default=0)
        scenes += [n + offset if n != BETWEEN_SCENES else BETWEEN_SCENES for n in numbers]
        shown = bank.seconds[video][span]
        first = seconds[-1] + rng.uniform(0.5, 1.5) if videos else shown[0] if start == 0 else rng.uniform(0.1, 0.5)
        seconds += (first + shown - shown[0]).tolist()
        videos += [video] * take
        patches += span.tolist()
    chosen = np.array(videos), np.array(patches)
    return Composed(*chosen, bank.cells[chosen], np.array(scenes), np.array(seconds))


def _things(cells: np.ndarray, scenes: np.ndarray, which: int) -> np.ndarray:
    """The things in the first (`which` 0) or last (-1) scene of a video."""
    clean = scenes[scenes != BETWEEN_SCENES]
    shown = cells[scenes == clean[which]] if clean.size else cells[:0]
    return shown[shown != NOTHING]


def draw_timestamps(seconds: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Timestamps as the sampler writes them: mostly those of the slices, else at another pace, or from a later start.
    No two are the same."""
    span = max(float(seconds[-1] - seconds[0]), 0.1)
    if span > LONGEST_SECONDS:
        seconds = seconds * (rng.uniform(0.7, 1) * LONGEST_SECONDS / span)
    elif rng.random() < 0.2:
        seconds = seconds * np.exp(rng.uniform(np.log(0.5), np.log(min(4, LONGEST_SECONDS / span))))
    if rng.random() < 0.6:
        # Some pass 100 seconds: only then have times of one video different numbers of digits.
        starts = [rng.uniform(0, 30), rng.uniform(0, 120), rng.uniform(0, 990), 100 - rng.uniform(0, LONGEST_SECONDS)]
        seconds = seconds + rng.choice(starts, p=[0.2, 0.4, 0.25, 0.15])
    steps = np.arange(len(seconds))
    tenths = np.maximum.accumulate((seconds * 10).round().astype(int) - steps) + steps
    return [f"{tenth / 10:.1f}" for tenth in tenths]


def scatter(timestamps: Sequence[str], scenes: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Each scene some tens of seconds earlier or later, in no order: the tens and hundreds of a short video are hardly
    different, and would be told from anywhere. Read where they are, they are right in a long one too. Scenes that are
    drawn out end with other digits than they begin with, which would else be told of their end as well."""
    begins = np.flatnonzero(np.diff(scenes, prepend=scenes[0] - 1))
    parts = np.split(np.array([round(10 * float(time)) for time in timestamps]), begins[1:])
    drawn_out = rng.random() < DRAWN_OUT
    if drawn_out:
        parts = _draw_out([len(part) for part in parts], rng)
    first_times = np.array([part[0] for part in parts])
    if not drawn_out and rng.random() < 0.5:
        starts = _far_apart(first_times, rng)
    else:
        starts = _side_by_side(np.array([part[-1] for part in parts]) - first_times, rng)
    tenths = np.concatenate([part - part[0] + start for part, start in zip(parts, starts, strict=True)])
    return [f"{tenth / 10:.1f}" for tenth in tenths]


def _draw_out(patches: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """For scenes of so many patches, any times in order, in tenths of a second."""
    # Side by side, all stay below a thousand seconds.
    longest = min(round(10 * LONGEST_SCENE_SECONDS), 9900 // len(patches) - 10)
    length = max(int(longest * rng.uniform(0.1, 1.0)), *patches)
    return [np.sort(rng.choice(length, size=count, replace=False)) for count in patches]


def _far_apart(first_times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """New starts of scenes, all in tenths of a second, over some hundreds of seconds. Often nothing but tens and
    hundreds tell them apart."""
    count = len(first_times)
    # Scenes of less than ten seconds that begin in the first twenty of different thirties have no time in common.
    thirties = rng.permutation(10 if count <= 10 and rng.random() < 0.5 else max(33, count))[:count]
    alike = rng.integers(100) + rng.integers(6, size=count)
    return (first_times if rng.random() < 0.5 else alike) % 100 + 300 * thirties + 100 * rng.integers(2, size=count)


def _side_by_side(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """New starts of scenes of these lengths, all in tenths of a second, over two minutes or so, or as many as they
    need: few times have hundreds, and those right before and after are other scenes'."""
    # No two are less than a second apart.
    count, needed = len(lengths), lengths.max() + 10
    room = max(int(rng.uniform(1000, 1600)) // count, needed)
    return room * rng.permutation(count) + rng.integers(room - needed + 1, size=count)


def draw_lines(start: float, end: float, rng: np.random.Generator) -> tuple[Line, ...]:
    """Subtitle lines from one time to another, each naming a thing, whether it is shown or not."""
    language: Language = "en" if rng.random() < 0.5 else "zh"
    times = sorted({f"{time:.1f}" for time in rng.uniform(start, end, int(rng.integers(1, MOST_LINES + 1)))}, key=float)
    return tuple(Line(time, THINGS[int(rng.integers(len(THINGS)))], language) for time in times)
