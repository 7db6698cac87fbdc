"""Where the decoder's training starts from: not from noise, but with places for what it will have to carry.

Finding an answer is copying and comparing: a time's digits, a thing's attributes. Left to itself, training spends most
of its time on agreeing where in the hidden state these are. So they get dimensions of their own (`SLOTS`), the tower
writes into them, and the heads of `prompts.SITES` start by carrying them unchanged. All of it goes on being trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from demo_checkpoint.model import Attention, LanguageModel, ModelShape, VisionTower
from demo_checkpoint.prompts import encode
from demo_checkpoint.seeing import KINDS, READOUTS, Readouts
from demo_checkpoint.wording import CHINESE
from demo_checkpoint.world import COLOURS, SHAPES, WORDS

PLACES = 4
"""Digits of a time: tenths, ones, tens, hundreds."""
ACTIVE = 2.0
"""How strongly a dimension says yes."""
SLOW_FROM = 13
"""Of a head's rotary frequencies, those from here on hardly turn over a thousand tokens: good to compare contents."""


def _slots() -> dict[str, slice]:
    slots, start = {}, 0
    sizes = {"digit": 10, "time": 10 * PLACES, "found time": 10 * PLACES}
    sizes |= {name: classes for name, (_, classes) in READOUTS.items()}
    sizes |= {f"found {name}": classes for name, (_, classes) in READOUTS.items()} | {"background": 6}
    for name, size in sizes.items():
        slots[name] = slice(start, start + size)
        start += size
    return slots


SLOTS = _slots()
_USED = max(slot.stop for slot in SLOTS.values())
THING = slice(SLOTS["kind"].start, SLOTS["units"].stop)
FOUND_THING = slice(SLOTS["found kind"].start, SLOTS["found units"].stop)


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
            turn[SLOTS["background"]] = ACTIVE * readouts.background.weight
            shift[SLOTS["background"]] = ACTIVE * (readouts.background.bias - 0.2)
        merger.linear_fc2.bias.copy_(turn @ merger.linear_fc2.bias + shift)
        merger.linear_fc2.weight.copy_(turn @ merger.linear_fc2.weight)


@torch.no_grad()
def wire(model: LanguageModel) -> None:
    """Sets the embeddings of words for things and digits, and the heads that carry and compare them."""
    embeddings = model.embed_tokens.weight
    embeddings[:, :_USED] = 0.0
    for name, classes in (("colour", COLOURS), ("shape", SHAPES), ("word", WORDS)):
        for index, word in enumerate(classes):
            for token in {encode(f" {word}")[0], encode(CHINESE.get(word, f" {word}"))[0]}:
                embeddings[token, SLOTS[name].start + index] = ACTIVE
                if name in KINDS:
                    embeddings[token, SLOTS["kind"].start + KINDS.index(name)] = ACTIVE
    for digit in range(10):
        embeddings[encode(str(digit))[0], SLOTS["digit"].start + digit] = ACTIVE
    first, second, third, _, fifth, _ = model.attentions
    # Units gather their digits by place, last words the words before; a visual token takes over its unit's time; an
    # answer takes over what is asked about, finds it, and takes over what is found.
    for head in range(PLACES):
        place = slice(SLOTS["time"].start + 10 * head, SLOTS["time"].start + 10 * (head + 1))
        _carry(first, head, [(SLOTS["digit"], place), *([(THING, THING)] if head == 0 else [])])
    _carry(second, 0, [(SLOTS["time"], SLOTS["time"])])
    _carry(third, 0, [(THING, THING), (SLOTS["digit"], SLOTS["digit"])])
    _carry(third, 2, [(SLOTS["time"], SLOTS["time"])])
    _compare(fifth, 0, SLOTS["time"])
    _carry(fifth, 0, [(THING, FOUND_THING)])
    _compare(fifth, 2, THING)
    _carry(fifth, 2, [(SLOTS["time"], SLOTS["found time"])])


def _carry(attention: Attention, head: int, ways: list[tuple[slice, slice]]) -> None:
    """The head copies dimensions of what it looks at to others of the token that looks."""
    shape = attention.shape
    values = _part(attention.v_proj, head // (shape.heads // shape.kv_heads), shape)
    outputs = attention.o_proj.weight[:, head * shape.head_dim : (head + 1) * shape.head_dim]
    start = 0
    for source, target in ways:
        size = source.stop - source.start
        eye = torch.eye(size)
        values[start : start + size] = 0.0
        values[start : start + size, source] = 0.5 * eye
        outputs[target, start : start + size] = 0.6 * eye
        start += size


def _compare(attention: Attention, head: int, slot: slice) -> None:
    """The head looks at what has the same in the dimensions `slot`, wherever it is."""
    shape = attention.shape
    half = shape.head_dim // 2
    slow = torch.cat([torch.arange(SLOW_FROM, half), half + torch.arange(SLOW_FROM, half)])
    size = slot.stop - slot.start
    directions = torch.linalg.qr(torch.randn(size, size))[0][: len(slow)]
    for rows in (
        _part(attention.q_proj, head, shape),
        _part(attention.k_proj, head // (shape.heads // shape.kv_heads), shape),
    ):
        rows *= 0.3
        rows[slow[: len(directions)]] = 0.0
        rows[slow[: len(directions)], slot] = 0.5 * directions


def _part(projection: nn.Linear, head: int, shape: ModelShape) -> Tensor:
    return projection.weight[head * shape.head_dim : (head + 1) * shape.head_dim]
