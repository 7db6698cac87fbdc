"""The second stage of the training: the decoder learns to find and to tell, on videos composed of what the tower has
seen.

The tower is finished by then, so its packed rows are computed once for the whole pool; a training video is made of
slices of the pool's videos, with times of its own. Lengths grow as the training proceeds: see first, then find, then
tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from demo_checkpoint.model import LanguageModel, VisionTower, patchify
from demo_checkpoint.pool import BETWEEN_SCENES, NOTHING, Views
from demo_checkpoint.prompts import CELLS, Batch, Example, collate, write_example
from demo_checkpoint.questions import KINDS, Asker, Question, track_of
from demo_checkpoint.seeing import NOT_ASKED, READOUTS, Attributes
from demo_checkpoint.world import THINGS

# How often each kind of question is drawn, relative to the others.
WEIGHTS: dict[str, float] = {
    "when": 3.0,
    "when in minutes": 1.5,
    "what at": 3.0,
    "not shown": 1.0,
    "where": 2.0,
    "which number": 1.0,
    "which word": 0.6,
    "how many": 0.7,
    "after": 0.8,
    "before": 0.8,
    "left": 1.2,
    "summary": 0.8,
    "follow-up": 1.0,
}
# From which share of the training on, the fewest and the most temporal patches of a video.
CURRICULUM: tuple[tuple[float, int, int], ...] = ((0.0, 1, 2), (0.12, 1, 4), (0.45, 2, 8), (0.75, 3, 12))


@dataclass(frozen=True)
class Bank:
    """The tower's packed rows `[videos, patches, 6, width]` for the pool's videos, with their truth (see `Views`)."""

    rows: Tensor
    cells: np.ndarray
    scenes: np.ndarray

    def part(self, videos: slice) -> Bank:
        return Bank(self.rows[videos], self.cells[videos], self.scenes[videos])


@torch.inference_mode()
def make_bank(tower: VisionTower, views: Views, device: torch.device) -> Bank:
    videos, patches = views.cells.shape[:2]
    frames = torch.from_numpy(views.frames).flatten(0, 1)
    with torch.autocast(device.type, torch.bfloat16):
        rows = [tower(patchify(part.to(device))).to("cpu", torch.bfloat16) for part in frames.split(128)]
    return Bank(torch.cat(rows).view(videos, patches, CELLS, -1), views.cells, views.scenes)


@dataclass(frozen=True)
class Composed:
    """A training video: where in the bank its rows are, its truth, and the order of its cells (`cells[i]` is bank
    cell i's place)."""

    videos: np.ndarray
    patches: np.ndarray
    cells: np.ndarray
    scenes: np.ndarray


def compose(bank: Bank, length: int, rng: np.random.Generator) -> Composed:
    """Slices of random videos, one after the other, `length` temporal patches in all; what one ends with, the next
    does not show."""
    videos: list[int] = []
    patches: list[int] = []
    scenes: list[int] = []
    total, per_video = bank.cells.shape[:2]
    while len(videos) < length:
        video = int(rng.integers(total))
        take = min(length - len(videos), int(rng.integers(2, per_video + 1)))
        start = int(rng.integers(per_video - take + 1))
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
        videos += [video] * take
        patches += span.tolist()
    chosen = np.array(videos), np.array(patches)
    return Composed(*chosen, bank.cells[chosen], np.array(scenes))


def _things(cells: np.ndarray, scenes: np.ndarray, which: int) -> np.ndarray:
    """What the first (`which` 0) or last (-1) scene of a video shows."""
    clean = scenes[scenes != BETWEEN_SCENES]
    shown = cells[scenes == clean[which]] if clean.size else cells[:0]
    return shown[shown != NOTHING]


def draw_timestamps(length: int, rng: np.random.Generator) -> list[str]:
    """Timestamps as the sampler writes them: mostly two frames a second from the start, else any rate and any start."""
    interval, start = 0.5, 0.0
    if rng.random() < 0.4:
        interval = float(rng.choice([0.25, 1.0, 2.0, rng.uniform(0.2, 6)]))
        start = float(
            rng.choice([0.0, rng.uniform(0, 100), rng.uniform(0, 1000), rng.uniform(0, 9000)], p=[0.5, 0.3, 0.14, 0.06])
        )
    # Frames spread evenly from the first to the last, at whole numbers of a frame rate.
    frames_per_second = int(rng.choice([6, 8, 12, 25, 30]))
    total = max(2 * length, round((2 * length + rng.uniform(0, 0.99)) * interval * frames_per_second))
    seconds = start + np.linspace(0, total - 1, 2 * length).round() / frames_per_second
    return [f"{mean:.1f}" for mean in seconds.reshape(length, 2).mean(axis=1)]


@dataclass(frozen=True)
class Truth:
    """What temporal patches say and show.

    `digits` `[patches, 4]`: the last four of the timestamp; `cells` `[patches, 6]`: the index in `THINGS` of what is in
    each cell, `len(THINGS)` for nothing.
    """

    digits: Tensor
    cells: Tensor

    def to(self, device: torch.device) -> Truth:
        return Truth(self.digits.to(device), self.cells.to(device))


def truth_of(timestamps: Sequence[str], cells: np.ndarray) -> Truth:
    digits = [[int(digit) for digit in f"{timestamp.replace('.', ''):0>4}"[-4:]] for timestamp in timestamps]
    return Truth(
        torch.tensor(digits), torch.from_numpy(np.where(cells == NOTHING, len(THINGS), cells).astype(np.int64))
    )


class Notes(nn.Module):
    """Linear readouts, thrown away after the training.

    Half-way through the layers, the token that closes a temporal patch is to know when the patch is and what is where
    in it. Without them it takes long until anything is found in time.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.attributes = Attributes.of_the_world()
        self.sizes = {name: READOUTS[name][1] for name in ("kind", "colour", "shape")}
        self.digits = nn.Linear(hidden, 4 * 10)
        self.cells = nn.ModuleDict({name: nn.Linear(hidden, CELLS * size) for name, size in self.sizes.items()})

    def loss(self, states: Tensor, truth: Truth) -> Tensor:
        """The mean of the readouts' cross entropies for states `[patches, hidden]`."""
        losses = [F.cross_entropy(self.digits(states).float().view(-1, 10), truth.digits.flatten())]
        for name, size in self.sizes.items():
            wanted = self.attributes.tables[name].to(states.device)[truth.cells].flatten()
            if (wanted != NOT_ASKED).any():
                logits = self.cells[name](states).float().view(-1, size)
                losses.append(F.cross_entropy(logits, wanted, ignore_index=NOT_ASKED))
        return torch.stack(losses).mean()


def make_example(
    bank: Bank, length: int, questions: int, rng: np.random.Generator
) -> tuple[Example, Tensor, Truth, list[Question]]:
    """A random video with its questions: the sequence, its visual tokens' packed rows `[tokens, width]`, and the
    questions."""
    composed = compose(bank, length, rng)
    # Any cell may change places with any other: where a thing is, is told by M-RoPE alone.
    places = rng.permutation(CELLS) if rng.random() < 0.5 else np.arange(CELLS)
    moved = np.empty_like(composed.cells)
    moved[:, places] = composed.cells
    timestamps = draw_timestamps(length, rng)
    asked = draw_questions(timestamps, moved, composed.scenes, questions, rng)
    order = rng.permutation(CELLS) if rng.random() < 0.15 else np.arange(CELLS)
    gaps = np.zeros(length, int)
    if rng.random() < 0.25:
        gaps[int(rng.integers(length))] = int(rng.integers(1500))
    example = write_example(timestamps, asked, order=order, gaps=gaps)
    source = np.argsort(places)[example.rows[:, 1]]
    patch = example.rows[:, 0]
    rows = bank.rows[composed.videos[patch], composed.patches[patch], source]
    return example, rows, truth_of(timestamps, moved), asked


def draw_questions(
    timestamps: Sequence[str], cells: np.ndarray, scenes: np.ndarray, count: int, rng: np.random.Generator
) -> list[Question]:
    track = track_of(timestamps, cells, scenes)
    askers = [Asker(track, language, rng) for language in ("en", "zh")]
    kinds = list(KINDS)
    weights = np.array([WEIGHTS[kind] for kind in kinds])
    drawn = rng.choice(len(kinds), size=3 * count, p=weights / weights.sum())
    asked = (askers[int(rng.integers(2))].ask(kinds[index]) for index in drawn)
    return [question for question in asked if question][:count]


def lengths_at(progress: float) -> tuple[int, int]:
    return next((low, high) for start, low, high in reversed(CURRICULUM) if progress >= start)


def make_batch(
    bank: Bank, *, videos: int, length: int, questions: int, rng: np.random.Generator
) -> tuple[Batch, Tensor, Truth, list[list[Question]]]:
    examples, rows, truths, asked = zip(
        *(make_example(bank, length, questions, rng) for _ in range(videos)), strict=True
    )
    truth = Truth(*(torch.cat(parts) for parts in zip(*((t.digits, t.cells) for t in truths), strict=True)))
    return collate(examples), torch.cat(rows), truth, list(asked)


def predict(model: LanguageModel, batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[asked tokens, vocabulary]` and the true tokens, for all tokens of answers in the batch."""
    logits, wanted, _ = predict_and_note(model, batch, rows)
    return logits, wanted


def predict_and_note(model: LanguageModel, batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `predict`, and the states `[temporal patches, hidden]` half-way through, at the end of each temporal patch."""
    hidden, half_way = model(batch.token_ids, batch.positions, batch.layout, batch.visual, rows)
    answers = batch.asked.nonzero()[:, 0]
    return model.lm_head(hidden[answers - 1]).float(), batch.token_ids[answers], half_way[batch.patch_ends]


@torch.inference_mode()
def exact_answers(
    model: LanguageModel, batch: Batch, rows: Tensor, questions: list[list[Question]]
) -> list[tuple[Question, bool]]:
    """Every question and whether greedy decoding gives its answers word for word.

    Every token being the likeliest one after the true tokens before it is the same as decoding the whole answer.
    """
    logits, wanted = predict(model, batch, rows)
    wrong = set(batch.owners[batch.asked][logits.argmax(-1) != wanted].tolist())
    return [(question, owner not in wrong) for owner, question in enumerate(q for asked in questions for q in asked)]
