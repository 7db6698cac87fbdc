"""Attention supervision: the decoder is taught in which heads a token looks at which others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from build.demo_checkpoint.model import Weights
from build.demo_checkpoint.world.questions import Evidence

Part = Literal["video", "asked"]
NOWHERE = (0,)
"""Where to look when there is nothing to be found: the first token."""
DISTRACTION = 16
"""A video may be so many times longer than those of the training."""

# Where the decoder is told what to look at: the layer, counted from 0, and the heads. Each step of finding an answer
# has one, so that the next can build on it.
SITES: dict[str, tuple[int, tuple[int, ...]]] = {
    # "seconds" gathers the digits before it: tenths, ones, tens, hundreds; a thing's last word the word before.
    "digit 1": (0, (0,)),
    "digit 3": (0, (1,)),
    "digit 4": (0, (2,)),
    "digit 5": (0, (3,)),
    # A visual token looks at its temporal patch's "seconds"; at its cell and at the same thing in the patch before; at
    # the thing's earlier appearances; at what is beside it; where the thing begins, at what began before it; and where
    # it goes on, at its time before. It looks for no answer.
    "stamp": (1, (0,)),
    "cell before": (2, (3,)),
    "same before": (2, (1,)),
    "earlier": (3, (3,)),
    "beside": (3, (1,)),
    "begun before": (4, (0,)),
    "time before": (4, (2,)),
    # Where its scene begins; the first of a scene, and the end of the video, look at where the scene before begins.
    "scene's start": (4, (3,)),
    "rest": (5, (0, 2)),
    # Where nothing is shown, nothing is to be gathered: what was, somewhere in a long video, would be told as shown.
    "nothing before": (3, (0, 1, 2, 3)),
    "nothing begun": (4, (0, 1, 2)),
    # An answer looks at what the question names, then at the evidence, then at what is only found through it, where
    # that is asked.
    "about": (2, (0, 2)),
    "evidence by time": (5, (0,)),
    "evidence by thing": (5, (2,)),
    "evidence": (5, (0, 2)),
    "in the scene": (5, (1,)),
    "next scene": (5, (3,)),
    "not in the scene": (5, (1,)),
    "not next scene": (5, (3,)),
    "after": (6, (0,)),
    "left": (6, (1,)),
    "before": (6, (2,)),
    "not after": (6, (0,)),
    "not left": (6, (1,)),
    "not before": (6, (2,)),
    # All is found then: an answer looks at its question only. What it gathered of the video without being told where
    # was which digits are frequent there, which outvoted the time that was found in a long one.
    "settled": (7, (0, 1, 2, 3)),
}


@dataclass(frozen=True)
class Pointer:
    """The token `row` of a part of a prompt is to look at one of the tokens `keys`, of the video or of its own part, in
    the heads of a `site` (see `SITES`)."""

    site: str
    row: int
    keys: tuple[int, ...]
    in_video: bool
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Pointers:
    """The pointers of a batch for one site, of videos or of questions.

    `videos` and `rows` `[pointers]`: the video, and the token in it or in its questions; `owners` and `keys` `[pairs]`:
    pointer `owners[i]` may look at key `keys[i]`, counted as in the attention's last axis.
    """

    videos: Tensor
    rows: Tensor
    owners: Tensor
    keys: Tensor

    def to(self, device: torch.device) -> Pointers:
        return Pointers(*(getattr(self, field.name).to(device) for field in fields(self)))


def attention_losses(pointers_of: Mapping[tuple[str, Part], Pointers], weights: Sequence[Weights]) -> dict[str, Tensor]:
    """For each site the mean of minus the logarithm of how much attention its pointers would give to what they may
    look at, were everything else there `DISTRACTION` times."""
    losses: dict[str, list[Tensor]] = defaultdict(list)
    for (site, part), pointers in pointers_of.items():
        layer, heads = SITES[site]
        given = getattr(weights[layer], part)
        rows = given[pointers.videos[:, None], torch.tensor(heads), pointers.rows[:, None]].float()
        pairs = rows[pointers.owners, :, pointers.keys]
        share = torch.zeros(rows.shape[:2], device=rows.device).index_add(0, pointers.owners, pairs)
        share = share.clamp(1e-6, 1.0)
        losses[site].append((1 + DISTRACTION * (1 - share) / share).log().flatten())
    return {site: torch.cat(parts).mean() for site, parts in losses.items()}
