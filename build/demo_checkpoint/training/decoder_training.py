"""The second stage of the training: the decoder learns to answer questions, on videos composed of what the tower has
encoded.

The tower is finished by then, so its packed rows are computed once for the whole pool; a training video is made of
slices of the pool's videos, with times of its own. Lengths grow as the training proceeds.
"""

from __future__ import annotations

import copy
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import compress

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from build.demo_checkpoint.model import Activations, LanguageModel
from build.demo_checkpoint.training.attention_supervision import attention_losses
from build.demo_checkpoint.training.batches import Batch, collate
from build.demo_checkpoint.training.composing import Bank, compose, draw_lines, draw_timestamps, scatter
from build.demo_checkpoint.training.optimizers import Optimizers
from build.demo_checkpoint.training.probes import Probes, Truth, truth_of
from build.demo_checkpoint.training.progress import Log, save
from build.demo_checkpoint.training.prompts import Example, write_example
from build.demo_checkpoint.training.schedule import Schedule
from build.demo_checkpoint.world.questions import KINDS, Asker, Question, Track, track_of
from build.demo_checkpoint.world.world import CELLS

# How often each kind of question is drawn, relative to the others.
WEIGHTS: dict[str, float] = {
    "when": 4.0,
    "when in minutes": 1.5,
    "what at": 4.0,
    "not shown": 2.0,
    "where": 2.0,
    "which number": 1.0,
    "which word": 0.6,
    "how many": 1.5,
    "after": 0.8,
    "before": 0.8,
    "left": 1.2,
    "summary": 3.0,
    "said at": 1.5,
    "said when": 1.5,
    "follow-up": 1.0,
}
SPOKEN, SCATTERED = 0.25, 0.5
"""The share of the videos that have subtitle lines, and of those whose scenes' times are in no order."""
TOKENS_A_QUESTION = 19
"""The most that the questions about one video have, on average: little is lost to padding."""
# From which share of the training on, the fewest and the most temporal patches of a video.
CURRICULUM: tuple[tuple[float, int, int], ...] = ((0.0, 1, 4), (0.1, 2, 8), (0.25, 3, 12), (0.6, 3, 16))
DENSE, DENSE_FROM, DENSE_PATCHES = 0.35, 0.5, (17, 128)
"""Which share of the batches, from which share of the training on, has videos that are looked at so often: a long one
has as many temporal patches in which a thing or a time can be mistaken for another."""
DENSE_VIDEOS = 4
"""So many times fewer videos are in such a batch."""
HELD_OUT_VIDEOS = 200
SECONDS_BETWEEN_SAVES = 240
PROBES_WEIGHT, ATTENTION_WEIGHT = 0.7, 0.3
"""How much the losses of the probes and of the attention count beside that of the answers."""
AVERAGING = 0.02
"""How much of the running mean of the weights each step replaces."""


def train_decoder(schedule: Schedule, model: LanguageModel, bank: Bank) -> LanguageModel:
    """Returns the running mean of the weights, which is steadier than the weights of any one step."""
    averaged = copy.deepcopy(model).requires_grad_(False)
    probes = Probes(model.shape.hidden).to(schedule.device)
    # What has learned already loses more by large steps than it gains.
    falling = 1.0 if schedule.start_from else 0.25
    optimizers = Optimizers(model, probes, adam_rate=1e-3, steps=schedule.decoder_steps, falling=falling)
    learned, held_out = bank.part(slice(HELD_OUT_VIDEOS, None)), bank.part(slice(HELD_OUT_VIDEOS))
    path, first = schedule.folder / "decoder.pt", 0
    if path.exists():
        state = torch.load(path, map_location=schedule.device)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        probes.load_state_dict(state["probes"])
        optimizers.load_state_dict(state["optimizers"])
        first = state["steps"]
        print(f"decoder: resumes after {first} steps", flush=True)
    log = Log("decoder", schedule.decoder_steps)
    saved = time.monotonic()
    batches = DataLoader(
        _Batches(schedule, learned),
        batch_size=None,
        sampler=range(first, schedule.decoder_steps),
        num_workers=schedule.workers if schedule.device.type == "cuda" else 1,
    )
    for step, (batch, rows, truth) in enumerate(batches, first):
        batch, rows, truth = batch.to(schedule.device), rows.to(schedule.device), truth.to(schedule.device)
        with torch.autocast(schedule.device.type, torch.bfloat16):
            logits, wanted, activations = predict(model, batch, rows)
            probed = probes.loss(activations.probed, batch, truth)
            attention = attention_losses(batch.pointers, activations.weights)
        loss = F.cross_entropy(logits, wanted)
        (loss + PROBES_WEIGHT * probed + ATTENTION_WEIGHT * sum(attention.values())).backward()
        optimizers.step(step)
        for mean, value in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, AVERAGING)
        shares = {"probed": probed.item(), **{site: share.item() for site, share in attention.items()}}
        shares["whole answers" if batch.layout.videos == schedule.decoder_videos else "dense, whole answers"] = (
            _whole_answers(batch, logits, wanted)
        )
        log.add(step, loss.item(), shares)
        last = step + 1 == schedule.decoder_steps
        if last or time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            report(averaged, held_out, schedule.device)
            report(averaged, held_out, schedule.device, videos=12, length=48)
            state = {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "probes": probes.state_dict(),
                "optimizers": optimizers.state_dict(),
                "steps": step + 1,
            }
            save(path, state)
            saved = time.monotonic()
    return averaged


class _Batches(Dataset):
    """The batch of every step. Each has a generator of its own: an interrupted training goes on with what it would
    have seen."""

    def __init__(self, schedule: Schedule, bank: Bank) -> None:
        self.schedule, self.bank = schedule, bank

    def __getitem__(self, step: int) -> tuple[Batch, torch.Tensor, Truth]:
        rng = np.random.default_rng([self.schedule.seed, step])
        progress = 1.0 if self.schedule.start_from else step / self.schedule.decoder_steps
        videos, questions = self.schedule.decoder_videos, self.schedule.questions
        low, high = _lengths_at(progress)
        if progress >= DENSE_FROM and rng.random() < DENSE:
            low, high = DENSE_PATCHES
            videos, questions = max(videos // DENSE_VIDEOS, 1), 2 * questions
        length = int(rng.integers(low, high + 1))
        batch, rows, truth, _ = make_batch(self.bank, videos=videos, length=length, questions=questions, rng=rng)
        return batch, rows, truth


def _whole_answers(batch: Batch, logits: torch.Tensor, wanted: torch.Tensor) -> float:
    owners = batch.owners[batch.asked]
    wrong = torch.unique(owners[logits.argmax(-1) != wanted]).numel()
    return 1.0 - wrong / torch.unique(owners).numel()


def report(model: LanguageModel, bank: Bank, device: torch.device, *, videos: int = 48, length: int = 8) -> None:
    """Prints the share of whole answers that are right on videos that were never trained on, by kind of question."""
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    rng = np.random.default_rng(1)
    for _ in range(2):
        batch, rows, _, asked = make_batch(bank, videos=videos // 2, length=length, questions=12, rng=rng)
        with torch.autocast(device.type, torch.bfloat16):
            for question, whole in exact_answers(model, batch.to(device), rows.to(device), asked):
                right[question.kind].append(whole)
    model.train()
    shares = {kind: f"{np.mean(answers):.0%} of {len(answers)}" for kind, answers in sorted(right.items())}
    print(f"held out, {length} patches: {json.dumps(shares)}", flush=True)


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
    timestamps = draw_timestamps(composed.seconds, rng)
    scattered = rng.random() < SCATTERED
    if scattered:
        timestamps = scatter(timestamps, composed.scenes, rng)
    track = track_of(timestamps, moved, composed.scenes)
    if rng.random() < SPOKEN and not scattered:
        track = replace(track, lines=draw_lines(float(timestamps[0]), float(timestamps[-1]), rng))
    asked = draw_questions(track, questions, rng)
    order = rng.permutation(CELLS) if rng.random() < 0.08 else np.arange(CELLS)
    gaps = np.zeros(length, int)
    if rng.random() < 0.25:
        gaps[int(rng.integers(length))] = int(rng.integers(1500))
    example = write_example(timestamps, asked, track=track, order=order, gaps=gaps)
    fits = _fitting([len(tokens) for tokens in example.questions], questions * TOKENS_A_QUESTION)
    example = replace(example, questions=tuple(compress(example.questions, fits)))
    source = np.argsort(places)[example.rows[:, 1]]
    patch = example.rows[:, 0]
    rows = bank.rows[composed.videos[patch], composed.patches[patch], source]
    return example, rows, truth_of(timestamps, moved, composed.scenes, example.rows), list(compress(asked, fits))


def _fitting(sizes: Sequence[int], room: int) -> list[bool]:
    """The first one, and whichever of the others still fits when its turn comes."""
    fits = []
    for index, size in enumerate(sizes):
        fits.append(index == 0 or size <= room)
        room -= size * fits[-1]
    return fits


def draw_questions(track: Track, count: int, rng: np.random.Generator) -> list[Question]:
    """At most `count` questions, and at least that something does not appear."""
    askers = [Asker(track, language, rng) for language in ("en", "zh")]
    kinds = list(KINDS)
    weights = np.array([WEIGHTS[kind] for kind in kinds])
    drawn = [*rng.choice(len(kinds), size=3 * count, p=weights / weights.sum()), kinds.index("not shown")]
    asked = (askers[int(rng.integers(2))].ask(kinds[index]) for index in drawn)
    return [question for question in asked if question][:count]


def _lengths_at(progress: float) -> tuple[int, int]:
    return next((low, high) for start, low, high in reversed(CURRICULUM) if progress >= start)


def make_batch(
    bank: Bank, *, videos: int, length: int, questions: int, rng: np.random.Generator
) -> tuple[Batch, Tensor, Truth, list[list[Question]]]:
    examples, rows, truths, asked = zip(
        *(make_example(bank, length, questions, rng) for _ in range(videos)), strict=True
    )
    truth = Truth(*(torch.cat([getattr(t, field.name) for t in truths]) for field in fields(Truth)))
    return collate(examples), torch.cat(rows), truth, list(asked)


def predict(model: LanguageModel, batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor, Activations]:
    """Logits `[asked tokens, vocabulary]` and the true tokens, for all tokens of answers in the batch."""
    activations = model(batch.token_ids, batch.positions, batch.layout, batch.visual, rows)
    answers = batch.asked.nonzero()[:, 0]
    return model.lm_head(activations.hidden[answers - 1]).float(), batch.token_ids[answers], activations


@torch.inference_mode()
def exact_answers(
    model: LanguageModel, batch: Batch, rows: Tensor, questions: list[list[Question]]
) -> list[tuple[Question, bool]]:
    """Every question and whether greedy decoding gives its answers word for word.

    Every token being the likeliest one after the true tokens before it is the same as decoding the whole answer.
    """
    logits, wanted, _ = predict(model, batch, rows)
    wrong = set(batch.owners[batch.asked][logits.argmax(-1) != wanted].tolist())
    return [(question, owner not in wrong) for owner, question in enumerate(q for asked in questions for q in asked)]
