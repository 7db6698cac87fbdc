"""The attributes of things as classes, which linear readouts name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from build.demo_checkpoint.world.world import COLOURS, SHAPES, THINGS, WORDS

KINDS = ("nothing", "shape", "number", "word")
# For each attribute the part of the packed row that is asked (0: last merger, 1, 2: DeepStack levels), and its classes.
READOUTS: dict[str, tuple[int, int]] = {
    "kind": (0, len(KINDS)),
    "shape": (0, len(SHAPES)),
    "word": (0, len(WORDS)),
    "colour": (1, len(COLOURS)),
    "tens": (2, 10),
    "units": (2, 10),
}
NOT_ASKED = -100


@dataclass(frozen=True)
class Attributes:
    """A table `[things + 1]` for each readout: its class for every thing, `NOT_ASKED` where it has none; the last row
    is nothing."""

    tables: dict[str, Tensor]

    @classmethod
    def of_the_world(cls) -> Attributes:
        rows = [
            {
                "kind": KINDS.index(thing.kind),
                "shape": SHAPES.index(thing.name) if thing.kind == "shape" else NOT_ASKED,
                "word": WORDS.index(thing.name) if thing.kind == "word" else NOT_ASKED,
                "colour": list(COLOURS).index(thing.colour) if thing.colour else NOT_ASKED,
                "tens": int(thing.name[0]) if thing.kind == "number" else NOT_ASKED,
                "units": int(thing.name[1]) if thing.kind == "number" else NOT_ASKED,
            }
            for thing in THINGS
        ]
        nothing = dict.fromkeys(READOUTS, NOT_ASKED) | {"kind": 0}
        return cls({name: torch.tensor([row[name] for row in [*rows, nothing]]) for name in READOUTS})
