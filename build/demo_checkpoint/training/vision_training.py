"""The first stage of the training: the vision tower learns the contents of each cell of single temporal patches.

A trial showed that seeing is what takes long when answers are the only teacher. So linear readouts are trained with
the tower: the last merger is asked for what a thing is, the DeepStack levels for what is visible in shallow layers,
colours and digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from build.demo_checkpoint.attributes import NOT_ASKED, READOUTS, Attributes
from build.demo_checkpoint.initialisation.slots import ACTIVE, SLOTS
from build.demo_checkpoint.model import VisionTower, patchify
from build.demo_checkpoint.training.optimizers import Optimizers
from build.demo_checkpoint.training.pool import NOTHING, Views
from build.demo_checkpoint.training.progress import Log, save
from build.demo_checkpoint.training.schedule import Schedule, model_shape
from build.demo_checkpoint.world.world import THINGS

SHIFT = 2
"""Pixels by which the pictures of the training are shifted at most: the pool has few of each number."""
TO_READ = 3
"""How much more often pictures with something to read are drawn: digits take longest to learn."""


class Readouts(nn.Module):
    """Linear readouts of packed rows; in the end the tower's rows are made to say what they read (`fold_readouts`)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, classes) for name, (_, classes) in READOUTS.items()})
        self.background = nn.Linear(hidden, 6)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        parts = rows.split(self.hidden, dim=-1)
        return {name: self.heads[name](parts[part]) for name, (part, _) in READOUTS.items()}


def train_vision_tower(schedule: Schedule, views: Views) -> tuple[VisionTower, Readouts]:
    """Trains, or takes what has been trained before from the schedule's folder."""
    shape = model_shape()
    tower, readouts = VisionTower(shape).to(schedule.device), Readouts(shape.hidden).to(schedule.device)
    finished = schedule.folder / "vision_tower.pt"
    if finished.exists():
        states = torch.load(finished, map_location=schedule.device)
        tower.load_state_dict(states[0])
        readouts.load_state_dict(states[1])
        return tower.eval(), readouts
    optimizers = Optimizers(tower, readouts, muon_rate=2e-3, adam_rate=2e-3, steps=schedule.vision_steps)
    attributes = Attributes.of_the_world()
    log = Log("vision tower", schedule.vision_steps)
    for step, (frames, cells) in enumerate(
        _batches(views, schedule.vision_batch, np.random.default_rng(schedule.seed))
    ):
        if step == schedule.vision_steps:
            break
        frames, cells = frames.to(schedule.device), cells.to(schedule.device)
        with torch.autocast(schedule.device.type, torch.bfloat16):
            loss, right = vision_loss(tower, readouts, attributes, frames, patchify(frames), cells)
        loss.backward()
        optimizers.step(step)
        log.add(step, loss.item(), right)
    save(finished, (tower.state_dict(), readouts.state_dict()))
    return tower.eval(), readouts


def _batches(views: Views, batch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random batches: frames uint8 `[batch, 2, 64, 96, 3]`, each pair a few pixels off, and their cells
    `[batch, 6]`."""
    frames = views.frames.reshape(-1, *views.frames.shape[2:])
    cells = views.cells.reshape(-1, views.cells.shape[-1])
    written = np.array([thing.kind != "shape" for thing in THINGS] + [False])
    weights = np.where(written[cells].any(1), TO_READ, 1).cumsum()
    while True:
        chosen = np.searchsorted(weights, rng.integers(weights[-1], size=batch), side="right")
        moved = np.stack([_shifted(pair, *rng.integers(-SHIFT, SHIFT + 1, size=2)) for pair in frames[chosen]])
        yield torch.from_numpy(moved), torch.from_numpy(cells[chosen].astype(np.int64))


def _shifted(pair: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The edge fills what a shift leaves empty."""
    padded = np.pad(pair, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    height, width = pair.shape[1:3]
    return padded[:, SHIFT + rows :, SHIFT + columns :][:, :height, :width]


def backgrounds(frames: Tensor) -> Tensor:
    """The colour at the edge of each cell in both frames, `[n, 6, 6]` in [0, 1]: what tells one scene from the next."""
    n = len(frames)
    cells = frames.reshape(n, 2, 2, 32, 3, 32, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(n, 6, 2, 32, 32, 3).float()
    return (cells[:, :, :, 0].mean(3) + cells[:, :, :, -1].mean(3)).flatten(2) / 510


def vision_loss(
    tower: VisionTower, readouts: Readouts, attributes: Attributes, frames: Tensor, patches: Tensor, cells: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the readouts' losses, and the share of each readout's answers that are right."""
    rows = tower(patches).float()
    loss = F.mse_loss(readouts.background(rows[..., : readouts.hidden]), backgrounds(frames)) * 20
    # A mild pull to unit size: the decoder reads these rows beside its own embeddings.
    loss = loss + 1e-3 * rows.square().mean()
    right: dict[str, float] = {}
    for name, logits in readouts(rows).items():
        wanted = attributes.tables[name].to(cells.device)[torch.where(cells == NOTHING, len(THINGS), cells)]
        asked = wanted != NOT_ASKED
        if asked.any():
            loss = loss + F.cross_entropy(logits[asked], wanted[asked])
            right[name] = (logits[asked].argmax(-1) == wanted[asked]).float().mean().item()
    return loss, right


@torch.inference_mode()
def readout_strength(
    tower: VisionTower, readouts: Readouts, views: Views, device: torch.device, *, videos: int = 300
) -> dict[str, float]:
    """The mean of each readout's logit for the right class, above the mean of all classes."""
    frames = torch.from_numpy(views.frames[:videos]).flatten(0, 1).to(device)
    cells = torch.from_numpy(views.cells[:videos].astype(np.int64)).flatten(0, 1).to(device)
    attributes, strength = Attributes.of_the_world(), {}
    for name, logits in readouts(tower(patchify(frames)).float()).items():
        wanted = attributes.tables[name].to(device)[torch.where(cells == NOTHING, len(THINGS), cells)]
        asked = wanted != NOT_ASKED
        above = logits[asked] - logits[asked].mean(-1, keepdim=True)
        strength[name] = above.gather(1, wanted[asked][:, None]).mean().item()
    return strength


@torch.no_grad()
def fold_readouts(tower: VisionTower, readouts: Readouts, strength: dict[str, float]) -> None:
    """Makes the tower's packed rows say what the readouts read from them, in the dimensions for it.

    `strength`: the mean of each readout's logit for the right class, above the mean of all classes.
    """
    hidden = tower.shape.hidden
    for part, merger in enumerate((tower.merger, *tower.deepstack_merger_list)):
        turn, shift = torch.zeros(hidden, hidden), torch.zeros(hidden)
        for name, (read_from, _) in READOUTS.items():
            if read_from == part:
                weight, bias = (readouts.heads.get_parameter(f"{name}.{which}") for which in ("weight", "bias"))
                scale = ACTIVE / strength[name]
                turn[SLOTS[name]] = scale * (weight - weight.mean(0))
                shift[SLOTS[name]] = scale * (bias - bias.mean())
        if part == 0:
            shift[SLOTS["any"]] = shift[SLOTS["visual"]] = ACTIVE
            turn[SLOTS["background"]] = ACTIVE * readouts.background.weight
            shift[SLOTS["background"]] = ACTIVE * (readouts.background.bias - 0.2)
        merger.linear_fc2.bias.copy_(turn @ merger.linear_fc2.bias + shift)
        merger.linear_fc2.weight.copy_(turn @ merger.linear_fc2.weight)
