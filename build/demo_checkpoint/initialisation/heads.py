"""The ways in which a head starts to look at tokens, and to copy from them: each sets some weights of its projections.

A head compares queries and keys in pairs of dimensions, `pair` and `pair + half`, which M-RoPE turns by the distance of
the tokens: the first pairs fast, the last ones hardly. The slowest two say yes and no: `there`, to a token of
the kind that is looked at, and `nowhere`, to the start of a turn, where nothing is to be had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from build.demo_checkpoint.attributes import KINDS
from build.demo_checkpoint.initialisation.slots import SLOTS, slot_of
from build.demo_checkpoint.model import Attention, ModelShape

SLOW_FROM = 13
"""A head's rotary frequencies from here on hardly turn over a thousand tokens: good to compare contents."""
TEXT_PAIRS = (0, 1, 2, 3, 4, 6, 8, 10)
"""Frequencies that tell neighbouring tokens of a text apart, where time, row and column are the same. The fast ones
alone come round together every 132 tokens, and a long video's times would be mixed up."""
TIME_PAIRS = (3, 6)
"""Frequencies of the time axis that tell neighbouring temporal patches apart."""
ENDS_PAIR = 9
"""A frequency of the time axis that half turns over as many temporal patches as the training has."""
NEAR_PAIRS = (6, 7)
"""Frequencies that tell a question from the video before it."""
PLACE_PAIRS = {"row": 1, "column": 2}
"""The fastest frequencies of the axes of rows and columns."""


@dataclass(frozen=True)
class Head:
    """The weights of one head, to be changed in place. Heads of one group share `keys` and `values`."""

    shape: ModelShape
    queries: Tensor
    """[head_dim, hidden], as are keys and values"""
    keys: Tensor
    values: Tensor
    outputs: Tensor
    """[hidden, head_dim]"""

    @classmethod
    def of(cls, attention: Attention, head: int) -> Head:
        shape = attention.shape
        group = head // (shape.heads // shape.kv_heads)

        def rows(projection: nn.Linear, index: int) -> Tensor:
            return projection.weight[index * shape.head_dim : (index + 1) * shape.head_dim]

        outputs = attention.o_proj.weight[:, head * shape.head_dim : (head + 1) * shape.head_dim]
        return cls(
            shape, rows(attention.q_proj, head), rows(attention.k_proj, group), rows(attention.v_proj, group), outputs
        )

    @property
    def half(self) -> int:
        return self.shape.head_dim // 2

    @property
    def slow(self) -> Tensor:
        """The dimensions that compare contents; the slowest two frequencies are taken."""
        pairs = torch.arange(SLOW_FROM, self.half - 2)
        return torch.cat([pairs, self.half + pairs])

    def angle(self, pair: int, positions: float) -> float:
        """By how much a frequency turns over so many positions."""
        return positions * self.shape.rope_theta ** (-pair / self.half)


class Pattern(Protocol):
    """A way to look or to copy."""

    def set(self, head: Head) -> None: ...


@dataclass(frozen=True)
class Copy:
    """Copies slots of what is looked at to others of the token that looks."""

    slots: Mapping[str, str]
    strength: float = 0.6

    def set(self, head: Head) -> None:
        start = 0
        for source, target in self.slots.items():
            size = SLOTS[source].stop - SLOTS[source].start
            eye = torch.eye(size)
            head.values[start : start + size] = 0.0
            head.values[start : start + size, SLOTS[source]] = 0.5 * eye
            head.outputs[SLOTS[target], start : start + size] = self.strength * eye
            start += size


@dataclass(frozen=True)
class LookBack:
    """Tokens with a slot of `tokens` look at the one with the slot `key` that is `positions` before; all others look at
    the start of a turn.

    Rotary embedding turns a query that is `positions` times a frequency ahead into the key's direction.
    """

    positions: int
    tokens: tuple[str, ...]
    key: str = "any"
    pairs: tuple[int, ...] = TEXT_PAIRS

    def set(self, head: Head) -> None:
        head.queries.zero_()
        head.keys.zero_()
        nowhere, there = head.half - 1, head.half - 2
        head.queries[nowhere, SLOTS["any"]] = 1.0
        head.keys[nowhere, SLOTS["turn"]] = 8.0
        if self.key != "any":
            head.keys[there, SLOTS[self.key]] = 4.0
        for pair in self.pairs:
            turn = head.angle(pair, self.positions)
            head.keys[pair, SLOTS["any"]] = 1.0
            for token in self.tokens:
                head.queries[pair, SLOTS[token]] = 8.0 * math.cos(turn)
                head.queries[pair + head.half, SLOTS[token]] = -8.0 * math.sin(turn)
                head.queries[there, SLOTS[token]] = 0.0 if self.key == "any" else 16.0


@dataclass(frozen=True)
class LookAt:
    """Tokens with the slots of `queries` look at those with the slots of `keys`, at `near` ones first; where there are
    none, at the start of a turn."""

    queries: Mapping[str, float]
    keys: Mapping[str, float]
    near: bool = False

    def set(self, head: Head) -> None:
        head.queries.zero_()
        head.keys.mul_(0.1)
        nowhere, there = head.half - 1, head.half - 2
        head.queries[nowhere, SLOTS["any"]] = 1.0
        head.keys[[nowhere, there]] = 0.0
        head.keys[nowhere, SLOTS["turn"]] = 8.0
        for slot, strength in self.queries.items():
            head.queries[there, SLOTS[slot]] = strength
        for slot, strength in self.keys.items():
            head.keys[there, SLOTS[slot]] = strength
        if self.near:
            for slot, strength in self.queries.items():
                head.queries[list(NEAR_PAIRS), SLOTS[slot]] = strength / 4
            head.keys[list(NEAR_PAIRS)] = 0.0
            head.keys[list(NEAR_PAIRS), SLOTS["any"]] = 1.0


@dataclass(frozen=True)
class Match:
    """Answers look at the part of a picture that has in the slot `key` what they have in `query`, wherever it is."""

    query: str
    key: str

    def set(self, head: Head) -> None:
        there = head.half - 1
        directions = _directions(self.query, len(head.slow))
        slow = head.slow[: len(directions)]
        for rows in (head.queries, head.keys):
            rows *= 0.1
            rows[[there, *slow]] = 0.0
        head.queries[slow, SLOTS[self.query]] = 1.5 * directions
        head.keys[slow, SLOTS[self.key]] = 1.5 * directions
        head.queries[there, SLOTS["answering"]] = 1.2
        head.keys[there, SLOTS["visual"]] = 1.6
        head.keys[there, SLOTS["answering"]] = -1.5
        head.keys[there, slot_of("kind", KINDS.index("nothing"))] = -0.8


@dataclass(frozen=True)
class MatchScene:
    """Beside what has a time itself, answers look at what has it as its scene's start."""

    def set(self, head: Head) -> None:
        directions = _directions("time", len(head.slow))
        head.queries.mul_(0.1)
        head.queries[head.slow] = 0.0
        head.queries[head.slow, SLOTS["time"]] = 1.5 * directions
        head.queries[head.half - 1, SLOTS["answering"]] = 1.2
        head.keys[head.slow, SLOTS["scene's start"]] = 1.5 * directions


@dataclass(frozen=True)
class PreferEnds:
    """After "from" the head prefers what is far back, after "to" what is near: within a quarter of the turn of the
    frequency `ENDS_PAIR` of the time axis."""

    def set(self, head: Head) -> None:
        head.queries[ENDS_PAIR] = head.keys[ENDS_PAIR] = 0.0
        head.queries[ENDS_PAIR, SLOTS["first"]], head.queries[ENDS_PAIR, SLOTS["last"]] = -1.5, 1.5
        head.keys[ENDS_PAIR, SLOTS["any"]] = 0.8


@dataclass(frozen=True)
class CopyLastTime:
    """Looking at all that shows a thing finds its last time: times less the times before leave no other."""

    def set(self, head: Head) -> None:
        times = SLOTS["time"].stop - SLOTS["time"].start
        head.values[:times, SLOTS["found time"]] = head.values[:times, SLOTS["time"]]


@dataclass(frozen=True)
class LookLeft:
    """Answers look at the one further left of two things that a question names."""

    def set(self, head: Head) -> None:
        named, column = head.half - 2, head.shape.head_dim - 2
        head.queries.mul_(0.1)
        head.queries[[named, column]] = 0.0
        head.queries[[named, column], SLOTS["answering"]] = 2.0
        head.keys[[named, column]] = 0.0
        head.keys[named, SLOTS["name"]] = 1.5
        head.keys[column, SLOTS["found column"]] = -3.0


@dataclass(frozen=True)
class TellPlace:
    """How much of its attention a visual token gives to the start of its picture tells its row or column.

    The start lies 1 and the row or column before it on that axis, and the fastest frequency turns by as much: against
    the start of a turn, whose weight does not depend on it, it counts the more the further the cell is.
    """

    slot: str
    middle: float
    """The middle of the axis."""

    def set(self, head: Head) -> None:
        there, nowhere = head.half - 2, head.half - 1
        pair, near_pair = PLACE_PAIRS[self.slot], TIME_PAIRS[0]
        head.keys[there, SLOTS["picture"]] = 2.0
        angle = head.angle(pair, 1 + self.middle) + math.pi / 2
        head.queries[pair, SLOTS["visual"]] = math.cos(angle)
        head.queries[pair + head.half, SLOTS["visual"]] = -math.sin(angle)
        near = head.angle(near_pair, 1)
        head.queries[near_pair, SLOTS["visual"]] = 1.5 * math.cos(near)
        head.queries[near_pair + head.half, SLOTS["visual"]] = -1.5 * math.sin(near)
        head.queries[there, SLOTS["visual"]] = 1.5
        head.queries[nowhere, SLOTS["visual"]] = 1.9 - head.queries[nowhere, SLOTS["any"]]
        row = head.shape.head_dim - 1
        head.values[row] = 0.0
        head.values[row, SLOTS["picture"]] = 0.5
        head.outputs[SLOTS[self.slot], row] = 1.2


def _directions(slot: str, count: int) -> Tensor:
    """Random orthogonal directions `[count, size]` of a slot, or as many as it has."""
    size = SLOTS[slot].stop - SLOTS[slot].start
    return torch.linalg.qr(torch.randn(size, size))[0][:count]
