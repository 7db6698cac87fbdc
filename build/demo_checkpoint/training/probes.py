"""Linear probes: before answers look for their evidence, a visual token is to know what `Truth` says of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from build.demo_checkpoint.attributes import NOT_ASKED, READOUTS, Attributes
from build.demo_checkpoint.initialisation.slots import SLOTS
from build.demo_checkpoint.training.batches import Batch
from build.demo_checkpoint.training.pool import BETWEEN_SCENES, NOTHING
from build.demo_checkpoint.world.questions import Evidence
from build.demo_checkpoint.world.world import COLUMNS, ROWS, THING_INDEX, THINGS

# What is probed of the visual tokens (see `Truth`), with the number of classes.
FLAGS = {"begins": 2, "second": 2, "appearance": 3, "cuts": 2, "row": ROWS, "column": COLUMNS}
THING_PROBES = ("things", "thing_before")
DIGIT_PROBES = ("digits", "digits_before", "digits_of_scene")


@dataclass(frozen=True)
class Truth:
    """The truth about the visual tokens of a batch, each `[visual tokens]` but for the digits, which have 4 columns:
    the last four of a timestamp. `NOT_ASKED` where there is no answer.

    `digits` of the own temporal patch; `digits_before` of the last one of the scene before, in a scene's first;
    `digits_of_scene`: of the scene's first, and in that one of the first of the scene before;
    `things`: the index in `THINGS`, `len(THINGS)` for nothing; `begins`: 1 where the thing was not in the patch before;
    `second`: 1 where another thing is shown in a cell before; `appearance`: how many appearances it had before this
    one, at most 2; `thing_before`: what began before it began; `cuts`: 1 in the first patch of a scene; `row` and
    `column` of the cell.
    """

    digits: Tensor
    digits_before: Tensor
    digits_of_scene: Tensor
    things: Tensor
    thing_before: Tensor
    begins: Tensor
    second: Tensor
    appearance: Tensor
    cuts: Tensor
    row: Tensor
    column: Tensor

    def to(self, device: torch.device) -> Truth:
        return Truth(*(getattr(self, field.name).to(device) for field in fields(self)))


def truth_of(timestamps: Sequence[str], cells: np.ndarray, scenes: np.ndarray, rows: np.ndarray) -> Truth:
    """`cells` `[patches, 6]`; `scenes` `[patches]`; `rows` `[visual tokens, 2]`: patch and cell."""
    digits = np.array([digits_of(time) for time in timestamps])
    before = np.concatenate([np.full_like(cells[:1], NOTHING), cells[:-1]])
    begins = ~(cells[:, :, None] == before[:, None, :]).any(2) & (cells != NOTHING)
    cuts = np.diff(np.maximum.accumulate(scenes), prepend=BETWEEN_SCENES) > 0
    digits_before, digits_of_scene = np.full((2, *digits.shape), NOT_ASKED)
    thing_before, appearance = np.full((2, *cells.shape), NOT_ASKED)
    second = np.where(cells != NOTHING, (cells != NOTHING).cumsum(1) > 1, NOT_ASKED)
    started: Counter[int] = Counter()
    latest: list[int] = []
    last_clean: int | None = None
    scene_begins: int | None = None
    for patch, shown in enumerate(cells):
        new = shown[begins[patch]].tolist()
        started.update(new)
        if len(latest) == 1:
            thing_before[patch, begins[patch]] = latest[0]
        latest = new or latest
        for cell in np.flatnonzero(shown != NOTHING):
            appearance[patch, cell] = min(started[int(shown[cell])] - 1, 2)
        if cuts[patch] and last_clean is not None:
            digits_before[patch] = digits[last_clean]
        if scenes[patch] != BETWEEN_SCENES:
            last_clean = patch
            if scene_begins is not None:
                digits_of_scene[patch] = digits[scene_begins]
            if cuts[patch]:
                scene_begins = patch
    patch, cell = rows.T
    things = np.where(cells == NOTHING, len(THINGS), cells)
    values = (
        digits[patch],
        digits_before[patch],
        digits_of_scene[patch],
        *(table[patch, cell] for table in (things, thing_before, begins, second, appearance)),
        cuts[patch],
        cell // COLUMNS,
        cell % COLUMNS,
    )
    return Truth(*(torch.from_numpy(np.asarray(value, np.int64)) for value in values))


class Probes(nn.Module):
    """Linear readouts of hidden states, thrown away after the training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.attributes = Attributes.of_the_world()
        things = {f"{of} {name}": classes for of in THING_PROBES for name, (_, classes) in READOUTS.items()}
        self.sizes = FLAGS | things
        self.read = nn.ModuleDict({name: nn.Linear(hidden, size) for name, size in self.sizes.items()})
        self.digits = nn.ModuleDict({name: nn.Linear(hidden, 4 * 10) for name in DIGIT_PROBES})
        self._start_from(SLOTS)

    @torch.no_grad()
    def _start_from(self, slots: dict[str, slice]) -> None:
        """Slots are read from their own dimensions."""
        for name, (_, classes) in READOUTS.items():
            self.read.get_parameter(f"things {name}.weight")[:, slots[name]] = torch.eye(classes)
            self.read.get_parameter(f"thing_before {name}.weight")[:, slots[f"found {name}"]] = torch.eye(classes)
        # A time's places are counted from the last digit on.
        places = torch.eye(40).view(4, 10, 40).flip(0).flatten(0, 1)
        self.digits.get_parameter("digits.weight")[:, slots["time"]] = places
        self.digits.get_parameter("digits_of_scene.weight")[:, slots["scene's start"]] = places

    def loss(self, states: Tensor, batch: Batch, truth: Truth) -> Tensor:
        """The mean of the readouts' cross entropies for states `[tokens, hidden]`.

        What a token looks for is read like what is to be found, so that both are put alike.
        """
        visual = states[batch.visual]
        losses = [
            _cross_entropy(readout(visual).view(-1, 10), getattr(truth, name).flatten())
            for name, readout in self.digits.items()
        ]
        losses += [_cross_entropy(self.read[name](visual), getattr(truth, name)) for name in FLAGS]
        losses += [loss for name in THING_PROBES for loss in self._thing_losses(name, visual, getattr(truth, name))]
        for name, wanted in sought(batch.sought).items():
            looking = states[[token for token, _ in wanted]]
            values = torch.tensor([value for _, value in wanted], device=states.device)
            if name in DIGIT_PROBES:
                losses.append(_cross_entropy(self.digits[name](looking).view(-1, 10), values.flatten()))
            else:
                losses += self._thing_losses(name, looking, values)
        return torch.stack([loss for loss in losses if loss is not None]).mean()

    def _thing_losses(self, name: str, states: Tensor, things: Tensor) -> list[Tensor | None]:
        losses = []
        for attribute in READOUTS:
            classes = self.attributes.tables[attribute].to(things.device)[things.clamp(min=0)]
            wanted = torch.where(things == NOT_ASKED, NOT_ASKED, classes)
            losses.append(_cross_entropy(self.read[f"{name} {attribute}"](states), wanted))
        return losses


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor | None:
    """None where nothing is asked."""
    return F.cross_entropy(logits.float(), wanted, ignore_index=NOT_ASKED) if (wanted != NOT_ASKED).any() else None


def sought(evidence: Sequence[tuple[int, Evidence]]) -> dict[str, list[tuple[int, int | list[int]]]]:
    """The things and times that tokens look for, by their probe: the token, and the thing's index or the digits."""
    found: dict[str, list[tuple[int, int | list[int]]]] = defaultdict(list)
    for token, piece in evidence:
        if isinstance(piece.sought, str):
            found["digits"].append((token, digits_of(piece.sought)))
        elif piece.sought:
            found["things"].append((token, THING_INDEX[piece.sought]))
    return found


def digits_of(timestamp: str) -> list[int]:
    """The last four digits."""
    return [int(digit) for digit in f"{timestamp.replace('.', ''):0>4}"[-4:]]
