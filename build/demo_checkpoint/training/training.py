"""The whole training, resumable: pool of videos, the tower learns to see, the decoder learns to tell."""

from __future__ import annotations

import copy
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset

from build.demo_checkpoint.export import load_exported
from build.demo_checkpoint.model import LanguageModel, ModelShape, VisionTower, patchify
from build.demo_checkpoint.training.optimizers import Optimizers
from build.demo_checkpoint.training.pool import Views, load_pool
from build.demo_checkpoint.training.prompts import Batch, tokenizer
from build.demo_checkpoint.training.seeing import Attributes, Readouts, batches, readout_strength, seeing_loss
from build.demo_checkpoint.training.telling import (
    DENSE,
    DENSE_FROM,
    DENSE_PATCHES,
    DENSE_VIDEOS,
    Bank,
    Notes,
    Truth,
    exact_answers,
    lengths_at,
    make_bank,
    make_batch,
    pointing_loss,
    predict,
)
from build.demo_checkpoint.training.wiring import fold_readouts, wire

HELD_OUT_VIDEOS = 200
SECONDS_BETWEEN_SAVES = 240
NOTING, POINTING = 0.7, 0.3
"""What the readouts and the pointers count beside the answers."""
AVERAGING = 0.02
"""How much of the running mean of the weights each step replaces."""


@dataclass(frozen=True)
class Plan:
    """How much is trained, and where: the same plan, seed and device type give the same checkpoint, but for
    interruptions. `start_from`: an exported checkpoint, whose tower is kept as it is and whose decoder learns on from
    the last stage of the curriculum."""

    folder: Path
    device: torch.device
    seed: int = 1
    pool_videos: int = 8000
    workers: int = 2
    seeing_steps: int = 4000
    seeing_batch: int = 128
    telling_steps: int = 20_000
    telling_videos: int = 8
    questions: int = 12
    start_from: Path | None = None


def model_shape() -> ModelShape:
    return ModelShape(vocabulary=-(-tokenizer().get_vocab_size() // 64) * 64)


def train(plan: Plan) -> tuple[VisionTower, LanguageModel]:
    """Trains, or goes on from the state in `plan.folder`."""
    torch.manual_seed(plan.seed)
    views = load_pool(plan.folder / "pool", videos=plan.pool_videos, seed=plan.seed, workers=plan.workers)
    if plan.start_from:
        tower, model = load_exported(plan.start_from, model_shape())
        tower = tower.to(plan.device).eval()
    else:
        tower, readouts = _learn_to_see(plan, views)
        fold_readouts(tower, readouts, readout_strength(tower, readouts, views, plan.device))
        model = LanguageModel(model_shape())
        wire(model)
    return tower, _learn_to_tell(plan, model.to(plan.device), _bank(plan, tower, views))


def _learn_to_see(plan: Plan, views: Views) -> tuple[VisionTower, Readouts]:
    shape = model_shape()
    tower, readouts = VisionTower(shape).to(plan.device), Readouts(shape.hidden).to(plan.device)
    finished = plan.folder / "seeing.pt"
    if finished.exists():
        states = torch.load(finished, map_location=plan.device)
        tower.load_state_dict(states[0])
        readouts.load_state_dict(states[1])
        return tower.eval(), readouts
    optimizers = Optimizers(tower, readouts, muon_rate=2e-3, adam_rate=2e-3, steps=plan.seeing_steps)
    attributes = Attributes.of_the_world()
    log = _Log("see", plan.seeing_steps)
    for step, (frames, cells) in enumerate(batches(views, plan.seeing_batch, np.random.default_rng(plan.seed))):
        if step == plan.seeing_steps:
            break
        frames, cells = frames.to(plan.device), cells.to(plan.device)
        with torch.autocast(plan.device.type, torch.bfloat16):
            loss, right = seeing_loss(tower, readouts, attributes, frames, patchify(frames), cells)
        loss.backward()
        optimizers.step(step)
        log.add(step, loss.item(), right)
    _save(finished, (tower.state_dict(), readouts.state_dict()))
    return tower.eval(), readouts


def _bank(plan: Plan, tower: VisionTower, views: Views) -> Bank:
    path = plan.folder / "bank.pt"
    if not path.exists():
        _save(path, make_bank(tower, views, plan.device).rows)
    return Bank(torch.load(path), views.cells, views.scenes, views.seconds)


def _learn_to_tell(plan: Plan, model: LanguageModel, bank: Bank) -> LanguageModel:
    """Returns the running mean of the weights, which is steadier than the weights of any one step."""
    averaged = copy.deepcopy(model).requires_grad_(False)
    notes = Notes(model.shape.hidden).to(plan.device)
    # What has learned already loses more by large steps than it gains.
    falling = 1.0 if plan.start_from else 0.25
    optimizers = Optimizers(model, notes, adam_rate=1e-3, steps=plan.telling_steps, falling=falling)
    learned, held_out = bank.part(slice(HELD_OUT_VIDEOS, None)), bank.part(slice(HELD_OUT_VIDEOS))
    path, first = plan.folder / "telling.pt", 0
    if path.exists():
        state = torch.load(path, map_location=plan.device)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        notes.load_state_dict(state["notes"])
        optimizers.load_state_dict(state["optimizers"])
        first = state["steps"]
        print(f"tell: resumes after {first} steps", flush=True)
    log = _Log("tell", plan.telling_steps)
    saved = time.monotonic()
    batches = DataLoader(
        TellingBatches(plan, learned),
        batch_size=None,
        sampler=range(first, plan.telling_steps),
        num_workers=plan.workers if plan.device.type == "cuda" else 1,
    )
    for step, (batch, rows, truth) in enumerate(batches, first):
        batch, rows, truth = batch.to(plan.device), rows.to(plan.device), truth.to(plan.device)
        with torch.autocast(plan.device.type, torch.bfloat16):
            logits, wanted, thought = predict(model, batch, rows)
            noted = notes.loss(thought.noted, batch, truth)
            pointed = pointing_loss(batch, thought.weights)
        loss = F.cross_entropy(logits, wanted)
        (loss + NOTING * noted + POINTING * sum(pointed.values())).backward()
        optimizers.step(step)
        for mean, value in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, AVERAGING)
        shares = {"noted": noted.item(), **{site: share.item() for site, share in pointed.items()}}
        shares["whole answers" if batch.layout.videos == plan.telling_videos else "dense, whole answers"] = (
            _whole_answers(batch, logits, wanted)
        )
        log.add(step, loss.item(), shares)
        last = step + 1 == plan.telling_steps
        if last or time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            report(averaged, held_out, plan.device)
            report(averaged, held_out, plan.device, videos=12, length=48)
            state = {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "notes": notes.state_dict(),
                "optimizers": optimizers.state_dict(),
                "steps": step + 1,
            }
            _save(path, state)
            saved = time.monotonic()
    return averaged


class TellingBatches(Dataset):
    """The batch of every step. Each has a generator of its own: an interrupted training goes on with what it would
    have seen."""

    def __init__(self, plan: Plan, bank: Bank) -> None:
        self.plan, self.bank = plan, bank

    def __getitem__(self, step: int) -> tuple[Batch, torch.Tensor, Truth]:
        rng = np.random.default_rng([self.plan.seed, step])
        progress = 1.0 if self.plan.start_from else step / self.plan.telling_steps
        videos, questions = self.plan.telling_videos, self.plan.questions
        low, high = lengths_at(progress)
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


def _save(path: Path, state: object) -> None:
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    temporary.replace(path)


class _Log:
    """Prints running means now and then."""

    def __init__(self, stage: str, steps: int, every: int = 20) -> None:
        self.stage, self.steps, self.every = stage, steps, every
        self.values: dict[str, list[float]] = defaultdict(list)
        self.started = time.monotonic()

    def add(self, step: int, loss: float, shares: dict[str, float]) -> None:
        for name, value in {"loss": loss, **shares}.items():
            self.values[name].append(value)
        if (step + 1) % self.every == 0:
            means = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in self.values.items())
            print(f"{self.stage} {step + 1}/{self.steps}, {time.monotonic() - self.started:.0f} s: {means}", flush=True)
            self.values.clear()
