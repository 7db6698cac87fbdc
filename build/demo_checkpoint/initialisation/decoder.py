"""Where the decoder's training starts from: not from noise, but with places for what it will have to carry.

Finding an answer is copying and comparing: a time's digits, a thing's attributes. Left to itself, training spends most
of its time on agreeing where in the hidden state these are. So they get dimensions of their own (`SLOTS`), the tower
writes into them, and the heads of `attention_supervision.SITES` start by carrying them unchanged. All of it goes on
being trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from build.demo_checkpoint.attributes import KINDS, READOUTS
from build.demo_checkpoint.initialisation.heads import (
    TIME_PAIRS,
    Copy,
    CopyLastTime,
    Head,
    LookAt,
    LookBack,
    LookLeft,
    Match,
    MatchScene,
    Pattern,
    PreferEnds,
    TellPlace,
)
from build.demo_checkpoint.initialisation.slots import ACTIVE, PLACES, SLOTS, slot_of
from build.demo_checkpoint.model import MLP, LanguageModel
from build.demo_checkpoint.vocabulary import encode
from build.demo_checkpoint.world.wording import CHINESE, CHINESE_NUMBER
from build.demo_checkpoint.world.world import COLOURS, SHAPES, WORDS

MARKS = {
    "unit": (" seconds", "秒"),
    "turn": ("<|im_start|>",),
    "answer": ("assistant",),
    "from": ("From", "从"),
    "to": (" to", "到"),
    "start": (" ", "从", "到"),
    "point": (".",),
    "picture": ("<|vision_start|>",),
}
NOT_ASKING = (
    "<0123456789. seconds>",
    "<|im_start|>user\n",
    "<|im_end|>\nassistant",
    "<|vision_start|><|video_pad|><|vision_end|>",
)
WORD_CLASSES = {"colour": tuple(COLOURS), "shape": SHAPES, "word": WORDS}
"""Attributes that a word names."""

ANSWERS_MARKS = {"answer": "answering", "from": "first", "to": "last"}
PLACE = {"row": "found row", "column": "found column"}
TO_NAMED = LookAt({"answering": 8.0}, {"name": 6.0, "unit": 4.0, "answering": -8.0}, near=True)
HEADS: tuple[tuple[int, int, Pattern], ...] = (
    # The layer and the head, both counted from 0, and what the head does. A later row overrides an earlier one.
    # Units gather their digits by place, last words the words before; visual tokens tell their cell.
    (0, 0, LookBack(1, ("unit", "name", "digit"))),
    (0, 0, Copy({"digit": "time tenths", "thing": "thing", "start": "started"})),
    (0, 1, LookBack(3, ("unit",))),
    (0, 1, Copy({"digit": "time ones"})),
    (0, 2, LookBack(4, ("unit",))),
    (0, 2, Copy({"digit": "time tens"})),
    (0, 3, LookBack(5, ("unit",))),
    (0, 3, Copy({"digit": "time hundreds"})),
    (0, 0, TellPlace("row", 0.5)),
    (0, 1, TellPlace("column", 1.0)),
    # A visual token takes over its unit's time; an answer learns that it is one, and whether "from" or "to" came last.
    (1, 0, LookBack(3, ("visual",), "unit", TIME_PAIRS)),
    (1, 0, Copy({"time": "time"})),
    (1, 2, LookAt({"any": 8.0}, {"answer": 8.0})),
    (1, 2, Copy(ANSWERS_MARKS)),
    (1, 3, LookAt({"any": 4.0}, {"answer": 8.0, "from": 8.0, "to": 8.0}, near=True)),
    (1, 3, Copy(ANSWERS_MARKS)),
    # An answer takes over what is asked about.
    (2, 0, TO_NAMED),
    (2, 0, Copy({"thing": "thing", "digit": "digit"})),
    (2, 2, TO_NAMED),
    (2, 2, Copy({"time": "time"})),
    (3, 0, LookAt({"answering": 8.0}, {"asking": 8.0, "answering": -8.0})),
    (3, 0, Copy({"text": "question"})),
    (3, 2, LookBack(1, ("any",))),
    (3, 2, Copy({"text": "previous"})),
    # Where a visual token finds something, it keeps what was before: where a thing begins, what began before it; where
    # it goes on, with the sign changed, its time before; and the time at which its scene begins. How it is found is
    # learned.
    (4, 0, Copy({"thing": "found thing"}, strength=1.5)),
    (4, 2, Copy({"time": "found time"}, strength=-1.2)),
    (4, 3, Copy({"time": "scene's start"}, strength=1.2)),
    # An answer finds what is asked about, or what has it as its scene's start, and takes over what is found there.
    (5, 0, Match("time", "time")),
    (5, 0, Copy({"thing": "found thing", **PLACE})),
    (5, 2, Match("thing", "thing")),
    (5, 2, PreferEnds()),
    (5, 2, Copy({"time": "found time", **PLACE})),
    (5, 1, MatchScene()),
    (5, 1, Copy({"thing": "found thing"})),
    (5, 3, MatchScene()),
    (5, 3, Copy({"time": "found time"})),
    (5, 3, CopyLastTime()),
    # What began after a thing is where that is kept; what began before it is kept where it begins. The left one of two
    # things is where that is.
    (6, 0, Match("thing", "found thing")),
    (6, 0, Copy({"thing": "found thing"}, strength=2.4)),
    (6, 2, Match("thing", "thing")),
    (6, 2, Copy({"found thing": "found thing"}, strength=2.4)),
    (6, 1, LookLeft()),
    (6, 1, Copy({"thing": "found thing"}, strength=2.4)),
)


@torch.no_grad()
def initialise_decoder(model: LanguageModel) -> None:
    """Sets the embeddings of words for things and digits, and the heads that carry and compare them."""
    layers = model.decoder_layers
    _set_embeddings(model.embed_tokens.weight)
    for layer, number, pattern in HEADS:
        pattern.set(Head.of(layers[layer].self_attn, number))
    # Over so many frequencies, neighbours differ little: these heads are to be sharp.
    for norm in (layers[0].self_attn.q_norm, layers[0].self_attn.k_norm):
        norm.weight.fill_(3.0)
    _say_words(model)
    _say_digits(model)
    _say_times(layers[5].mlp)
    _say_numbers(layers[6].mlp, model.embed_tokens.weight[encode(CHINESE_NUMBER)[0], SLOTS["text"]])


def _set_embeddings(embeddings: Tensor) -> None:
    """`embeddings` [vocabulary, hidden]"""
    words = embeddings[:, SLOTS["text"]].clone()
    embeddings.zero_()
    embeddings[:, SLOTS["text"]] = words
    embeddings[:, SLOTS["asking"]] = ACTIVE
    for text in NOT_ASKING:
        embeddings[list(encode(text)), SLOTS["asking"]] = 0.0
    embeddings[:, SLOTS["any"]] = ACTIVE
    for slot, texts in MARKS.items():
        for text in texts:
            embeddings[encode(text)[0], SLOTS[slot]] = ACTIVE
    for name, words_of_class in WORD_CLASSES.items():
        for index, word in enumerate(words_of_class):
            for token in {encode(f" {word}")[0], encode(CHINESE.get(word, f" {word}"))[0]}:
                embeddings[token, slot_of(name, index)] = ACTIVE
                if name in KINDS:
                    embeddings[token, SLOTS["name"]] = ACTIVE
                    embeddings[token, slot_of("kind", KINDS.index(name))] = ACTIVE
    for digit in range(10):
        embeddings[encode(str(digit))[0], slot_of("digit", digit)] = ACTIVE


def _say_words(model: LanguageModel) -> None:
    """A word is said where its attribute was found."""
    embeddings = model.embed_tokens.weight
    for slot in READOUTS:
        for token in embeddings[:, SLOTS[slot]].any(1).nonzero()[:, 0]:
            model.lm_head.weight[token, SLOTS[f"found {slot}"]] = 0.1 * embeddings[token, SLOTS[slot]]


def _say_digits(model: LanguageModel) -> None:
    for digit in range(10):
        model.lm_head.weight[encode(str(digit))[0], slot_of("say", digit)] = 1.0


def _say_times(mlp: MLP) -> None:
    """After the point come the tenths that were found; a number starts with its tens or, without any, with its ones."""
    gates: tuple[dict[str, float], ...] = ({"point": 1.5}, {"start": 1.5, "started": 3.0}, {"start": 1.5})
    for place, gate in enumerate(gates):
        units = slice(10 * place, 10 * (place + 1))
        mlp.gate_proj.weight[units] = mlp.up_proj.weight[units] = 0.0
        for slot, strength in gate.items():
            mlp.gate_proj.weight[units, SLOTS[slot]] = strength
        if PLACES[place] == "ones":
            mlp.gate_proj.weight[units, SLOTS["found time tens"]] = -3.0
        mlp.up_proj.weight[units, SLOTS[f"found time {PLACES[place]}"]] = torch.eye(10)
        mlp.down_proj.weight[SLOTS["say"], units] = 0.1 * torch.eye(10)


def _say_numbers(mlp: MLP, chinese_number: Tensor) -> None:
    """The tens of a number that was found come before any digit, its units after them. `chinese_number`: the embedding
    of the word before a number, which has no space."""
    number = slot_of("found kind", KINDS.index("number"))
    for unit, found in enumerate(("found tens", "found units")):
        units = slice(10 * unit, 10 * (unit + 1))
        gates, values = mlp.gate_proj.weight[units], mlp.up_proj.weight[units]
        gates.zero_()
        values.zero_()
        gates[:, SLOTS["any"]] = -0.8
        gates[:, number] = 1.5
        if unit:
            gates[:, SLOTS["digit"]] = 0.8
        else:
            gates[:, SLOTS["start"]] = 0.8
            gates[:, SLOTS["text"]] = 1.6 * chinese_number / chinese_number.square().sum()
        values[:, SLOTS[found]] = torch.eye(10)
        mlp.down_proj.weight[SLOTS["say"], units] = 0.3 * torch.eye(10)
