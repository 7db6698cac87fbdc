"""Where the decoder's training starts from: not from noise, but with places for what it will have to carry.

Finding an answer is copying and comparing: a time's digits, a thing's attributes. Left to itself, training spends most
of its time on agreeing where in the hidden state these are. So they get dimensions of their own (`SLOTS`), the tower
writes into them, and the heads of `prompts.SITES` start by carrying them unchanged. All of it goes on being trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from build.demo_checkpoint.model import Attention, LanguageModel, ModelShape, VisionTower
from build.demo_checkpoint.training.prompts import encode
from build.demo_checkpoint.training.seeing import KINDS, READOUTS, Readouts
from build.demo_checkpoint.world.wording import CHINESE, CHINESE_NUMBER
from build.demo_checkpoint.world.world import COLOURS, SHAPES, WORDS

PLACES = 4
"""Digits of a time: tenths, ones, tens, hundreds."""
ACTIVE = 2.0
"""How strongly a dimension says yes."""
SLOW_FROM = 13
"""Of a head's rotary frequencies, those from here on hardly turn over a thousand tokens: good to compare contents."""


TEXT_PAIRS = (0, 1, 2, 3, 4, 6, 8, 10)
"""Frequencies that tell neighbouring tokens of a text apart, where time, row and column are the same. The fast ones
alone come round together every 132 tokens, and a long video's times would be mixed up."""
TIME_PAIRS = (3, 6)
"""Frequencies of the time axis that tell neighbouring temporal patches apart."""
ENDS_PAIR = 9
"""A frequency of the time axis that half turns over as many temporal patches as the training has."""
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
NEAR_PAIRS = (6, 7)
"""Frequencies that tell a question from the video before it."""


def _slots() -> dict[str, slice]:
    slots, start = {}, 0
    sizes = {"digit": 10, "time": 10 * PLACES, "found time": 10 * PLACES}
    sizes |= {name: classes for name, (_, classes) in READOUTS.items()}
    sizes |= {f"found {name}": classes for name, (_, classes) in READOUTS.items()} | {"background": 6}
    # What a token is: anything, a picture's, a unit of time, the last word of a thing's name, the start of a turn, the
    # start of an answer, after the start of an answer; "from" and "to", and after them.
    sizes |= dict.fromkeys(("any", "visual", "unit", "name", "turn", "answer", "answering"), 1)
    sizes |= dict.fromkeys(("from", "to", "first", "last"), 1)
    # The start of a number, right after it, the point in it; the digit to say next.
    sizes |= dict.fromkeys(("start", "started", "point"), 1) | {"say": 10}
    # A word of a question, the start of a picture; where a picture's cell is.
    sizes |= dict.fromkeys(("asking", "picture", "row", "column", "found row", "found column"), 1)
    # The word itself, the one before, and those of the question, mixed.
    sizes |= dict.fromkeys(("text", "previous", "question"), 41)
    # The time at which a scene begins.
    sizes |= {"scene's start": 10 * PLACES}
    for name, size in sizes.items():
        slots[name] = slice(start, start + size)
        start += size
    return slots


SLOTS = _slots()
THING = slice(SLOTS["kind"].start, SLOTS["units"].stop)
FOUND_THING = slice(SLOTS["found kind"].start, SLOTS["found units"].stop)
PLACE = [(SLOTS["row"], SLOTS["found row"]), (SLOTS["column"], SLOTS["found column"])]
ROW_PAIR, COLUMN_PAIR = 1, 2
"""The fastest frequencies of the axes of rows and columns."""


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


@torch.no_grad()
def wire(model: LanguageModel) -> None:
    """Sets the embeddings of words for things and digits, and the heads that carry and compare them."""
    embeddings = model.embed_tokens.weight
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
    for name, classes in (("colour", COLOURS), ("shape", SHAPES), ("word", WORDS)):
        for index, word in enumerate(classes):
            for token in {encode(f" {word}")[0], encode(CHINESE.get(word, f" {word}"))[0]}:
                embeddings[token, SLOTS[name].start + index] = ACTIVE
                if name in KINDS:
                    embeddings[token, SLOTS["name"]] = ACTIVE
                    embeddings[token, SLOTS["kind"].start + KINDS.index(name)] = ACTIVE
    for digit in range(10):
        embeddings[encode(str(digit))[0], SLOTS["digit"].start + digit] = ACTIVE
    first, second, third, fourth, fifth, sixth, seventh, _ = (layer.self_attn for layer in model.decoder_layers)
    # Units gather their digits by place, last words the words before; a visual token takes over its unit's time; an
    # answer takes over what is asked about, finds it, and takes over what is found.
    for head, back in enumerate((1, 3, 4, 5)):
        _point_back(first, head, back, ["unit", "name", "digit"] if back == 1 else ["unit"], "any", TEXT_PAIRS)
        place = slice(SLOTS["time"].start + 10 * head, SLOTS["time"].start + 10 * (head + 1))
        _carry(
            first,
            head,
            [(SLOTS["digit"], place), *([(THING, THING), (SLOTS["start"], SLOTS["started"])] if head == 0 else [])],
        )
    # Over so many frequencies, neighbours differ little: these heads are to be sharp.
    for norm in (first.q_norm, first.k_norm):
        norm.weight.fill_(3.0)
    _point_back(second, 0, 3, ["visual"], "unit", TIME_PAIRS)
    _tell_place(first, 0, "row", ROW_PAIR, 0.5)
    _tell_place(first, 1, "column", COLUMN_PAIR, 1.0)
    _carry(second, 0, [(SLOTS["time"], SLOTS["time"])])
    _point_at(second, 2, {"any": 8.0}, {"answer": 8.0})
    _carry(
        second,
        2,
        [(SLOTS["answer"], SLOTS["answering"]), (SLOTS["from"], SLOTS["first"]), (SLOTS["to"], SLOTS["last"])],
    )
    _point_at(second, 3, {"any": 4.0}, {"answer": 8.0, "from": 8.0, "to": 8.0}, near=True)
    _carry(
        second,
        3,
        [(SLOTS["answer"], SLOTS["answering"]), (SLOTS["from"], SLOTS["first"]), (SLOTS["to"], SLOTS["last"])],
    )
    for head in (0, 2):
        _point_at(third, head, {"answering": 8.0}, {"name": 6.0, "unit": 4.0, "answering": -8.0}, near=True)
    _carry(third, 0, [(THING, THING), (SLOTS["digit"], SLOTS["digit"])])
    _carry(third, 2, [(SLOTS["time"], SLOTS["time"])])
    _point_at(fourth, 0, {"answering": 8.0}, {"asking": 8.0, "answering": -8.0})
    _carry(fourth, 0, [(SLOTS["text"], SLOTS["question"])])
    _point_back(fourth, 2, 1, ["any"], "any", TEXT_PAIRS)
    _carry(fourth, 2, [(SLOTS["text"], SLOTS["previous"])])
    for slot in READOUTS:
        for token in embeddings[:, SLOTS[slot]].any(1).nonzero()[:, 0]:
            model.lm_head.weight[token, SLOTS[f"found {slot}"]] = 0.1 * embeddings[token, SLOTS[slot]]
    remember(fifth)
    _compare(sixth, 0, SLOTS["time"], SLOTS["time"])
    _carry(sixth, 0, [(THING, FOUND_THING), *PLACE])
    _compare(sixth, 2, THING, THING)
    _prefer_ends(sixth, 2)
    _say_digits(model)
    _carry(sixth, 2, [(SLOTS["time"], SLOTS["found time"]), *PLACE])
    follow_scenes(sixth)
    tell_ends(sixth)
    look_again(seventh)
    say_numbers(model)


def remember(attention: Attention) -> None:
    """Where a visual token finds something, it keeps what was before: a thing's begin what began before it, and where
    it goes on, with the sign changed, its time before; and the time at which its scene begins. How it is found is
    learned."""
    _carry(attention, 0, [(THING, FOUND_THING)], strength=1.5)
    _carry(attention, 2, [(SLOTS["time"], SLOTS["found time"])], strength=-1.2)
    _carry(attention, 3, [(SLOTS["time"], SLOTS["scene's start"])], strength=1.2)


def tell_ends(attention: Attention) -> None:
    """Looking at all that shows a thing finds its last time: times less the times before leave no other."""
    values = _part(attention.v_proj, 1, attention.shape)
    times = SLOTS["time"].stop - SLOTS["time"].start
    values[:times, SLOTS["found time"]] = values[:times, SLOTS["time"]]


def follow_scenes(attention: Attention) -> None:
    """Beside what has a time itself, answers look at what has it as its scene's start, for things and for times."""
    shape = attention.shape
    half = shape.head_dim // 2
    slow = _slow(half)
    size = 10 * PLACES
    for head, ways in ((1, (THING, FOUND_THING)), (3, (SLOTS["time"], SLOTS["found time"]))):
        directions = torch.linalg.qr(torch.randn(size, size))[0][: len(slow)]
        queries = _part(attention.q_proj, head, shape)
        queries.mul_(0.1)
        queries[slow] = 0.0
        queries[slow, SLOTS["time"]] = 1.5 * directions
        queries[half - 1, SLOTS["answering"]] = 1.2
        _part(attention.k_proj, head // (shape.heads // shape.kv_heads), shape)[slow, SLOTS["scene's start"]] = (
            1.5 * directions
        )
        _carry(attention, head, [ways])


def look_again(attention: Attention) -> None:
    """What began after a thing is where that is kept; what began before it is kept where it begins; and of two things
    that a question names, answers look at the one further left."""
    _compare(attention, 0, THING, FOUND_THING)
    _compare(attention, 2, THING, THING)
    for head in (0, 1):
        _carry(attention, head, [(THING, FOUND_THING)], strength=2.4)
    _carry(attention, 2, [(FOUND_THING, FOUND_THING)], strength=2.4)
    shape = attention.shape
    half = shape.head_dim // 2
    queries, keys = _part(attention.q_proj, 1, shape), _part(attention.k_proj, 0, shape)
    named, column = half - 2, shape.head_dim - 2
    queries.mul_(0.1)
    queries[[named, column]] = 0.0
    queries[[named, column], SLOTS["answering"]] = 2.0
    keys[[named, column]] = 0.0
    keys[named, SLOTS["name"]] = 1.5
    keys[column, SLOTS["found column"]] = -3.0


def say_numbers(model: LanguageModel) -> None:
    """Of a number that was found, its tens come before any digit, then its units."""
    layer = model.decoder_layers[6].mlp
    number = slice(
        SLOTS["found kind"].start + KINDS.index("number"), SLOTS["found kind"].start + KINDS.index("number") + 1
    )
    word = model.embed_tokens.weight[encode(CHINESE_NUMBER)[0], SLOTS["text"]]
    for unit, found in enumerate(("found tens", "found units")):
        units = slice(10 * unit, 10 * (unit + 1))
        gates, values = layer.gate_proj.weight[units], layer.up_proj.weight[units]
        gates.zero_()
        values.zero_()
        gates[:, SLOTS["any"]] = -0.8
        gates[:, number] = 1.5
        if unit:
            gates[:, SLOTS["digit"]] = 0.8
        else:
            gates[:, SLOTS["start"]] = 0.8
            gates[:, SLOTS["text"]] = 1.6 * word / word.square().sum()
        values[:, SLOTS[found]] = torch.eye(10)
        layer.down_proj.weight[SLOTS["say"], units] = 0.3 * torch.eye(10)


def _carry(attention: Attention, head: int, ways: list[tuple[slice, slice]], *, strength: float = 0.6) -> None:
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
        outputs[target, start : start + size] = strength * eye
        start += size


def _slow(half: int) -> Tensor:
    """The dimensions of a head that compare contents; the slowest two frequencies are taken."""
    pairs = torch.arange(SLOW_FROM, half - 2)
    return torch.cat([pairs, half + pairs])


def _compare(attention: Attention, head: int, own: slice, other: slice) -> None:
    """Answers look at the part of a picture that has in the dimensions `other` what they have in `own`, wherever it
    is."""
    shape = attention.shape
    half = shape.head_dim // 2
    there = half - 1
    slow = _slow(half)
    size = own.stop - own.start
    directions = torch.linalg.qr(torch.randn(size, size))[0][: len(slow)]
    queries = _part(attention.q_proj, head, shape)
    keys = _part(attention.k_proj, head // (shape.heads // shape.kv_heads), shape)
    for rows in (queries, keys):
        rows *= 0.1
        rows[[there, *slow[: len(directions)]]] = 0.0
    queries[slow[: len(directions)], own] = 1.5 * directions
    keys[slow[: len(directions)], other] = 1.5 * directions
    queries[there, SLOTS["answering"]] = 1.2
    keys[there, SLOTS["visual"]] = 1.6
    keys[there, SLOTS["answering"]] = -1.5
    keys[there, SLOTS["kind"].start + KINDS.index("nothing")] = -0.8


def _say_digits(model: LanguageModel) -> None:
    """After the point come the tenths that were found; a number starts with its tens or, without any, with its ones."""
    layer = model.decoder_layers[5].mlp
    tens = slice(SLOTS["found time"].start + 20, SLOTS["found time"].start + 30)
    gates: tuple[dict[str, float], ...] = ({"point": 1.5}, {"start": 1.5, "started": 3.0}, {"start": 1.5})
    for place, gate in enumerate(gates):
        units = slice(10 * place, 10 * (place + 1))
        layer.gate_proj.weight[units] = layer.up_proj.weight[units] = 0.0
        for slot, strength in gate.items():
            layer.gate_proj.weight[units, SLOTS[slot]] = strength
        if place == 1:
            layer.gate_proj.weight[units, tens] = -3.0
        found = slice(SLOTS["found time"].start + 10 * place, SLOTS["found time"].start + 10 * (place + 1))
        layer.up_proj.weight[units, found] = torch.eye(10)
        layer.down_proj.weight[SLOTS["say"], units] = 0.1 * torch.eye(10)
    for digit in range(10):
        model.lm_head.weight[encode(str(digit))[0], SLOTS["say"].start + digit] = 1.0


def _prefer_ends(attention: Attention, head: int) -> None:
    """After "from" the head prefers what is far back, after "to" what is near: within a quarter of the turn of the
    frequency `ENDS_PAIR` of the time axis."""
    shape = attention.shape
    queries = _part(attention.q_proj, head, shape)
    keys = _part(attention.k_proj, head // (shape.heads // shape.kv_heads), shape)
    queries[ENDS_PAIR] = keys[ENDS_PAIR] = 0.0
    queries[ENDS_PAIR, SLOTS["first"]], queries[ENDS_PAIR, SLOTS["last"]] = -1.5, 1.5
    keys[ENDS_PAIR, SLOTS["any"]] = 0.8


def _point_back(
    attention: Attention, head: int, back: int, tokens: list[str], what: str, pairs: tuple[int, ...]
) -> None:
    """Tokens of the kinds `tokens` look at the one of the kind `what` that is `back` positions before; all others look
    at the start of a turn, where nothing is to be had.

    Rotary embedding turns a query that is `back` times a frequency ahead into the key's direction. `pairs`: of which
    frequencies.
    """
    shape = attention.shape
    half = shape.head_dim // 2
    queries = _part(attention.q_proj, head, shape)
    keys = _part(attention.k_proj, head // (shape.heads // shape.kv_heads), shape)
    queries.zero_()
    keys.zero_()
    nowhere, there = half - 1, half - 2
    queries[nowhere, SLOTS["any"]] = 1.0
    keys[nowhere, SLOTS["turn"]] = 8.0
    if what != "any":
        keys[there, SLOTS[what]] = 4.0
    for pair in pairs:
        turn = back * shape.rope_theta ** (-pair / half)
        keys[pair, SLOTS["any"]] = 1.0
        for token in tokens:
            queries[pair, SLOTS[token]] = 8.0 * math.cos(turn)
            queries[pair + half, SLOTS[token]] = -8.0 * math.sin(turn)
            queries[there, SLOTS[token]] = 0.0 if what == "any" else 16.0


def _tell_place(attention: Attention, head: int, slot: str, pair: int, middle: float) -> None:
    """How much of its attention a visual token gives to the start of its picture tells its row or column.

    The start lies 1 and the row or column before it on that axis, and the frequency `pair` turns by as much: against
    the start of a turn, whose weight does not depend on it, it counts the more the further the cell is.
    """
    shape = attention.shape
    half = shape.head_dim // 2
    group = head // (shape.heads // shape.kv_heads)
    queries, keys = _part(attention.q_proj, head, shape), _part(attention.k_proj, group, shape)
    there, nowhere = half - 2, half - 1
    keys[there, SLOTS["picture"]] = 2.0
    angle = shape.rope_theta ** (-pair / half) * (1 + middle) + math.pi / 2
    queries[pair, SLOTS["visual"]], queries[pair + half, SLOTS["visual"]] = math.cos(angle), -math.sin(angle)
    near = shape.rope_theta ** (-TIME_PAIRS[0] / half)
    queries[TIME_PAIRS[0], SLOTS["visual"]] = 1.5 * math.cos(near)
    queries[TIME_PAIRS[0] + half, SLOTS["visual"]] = -1.5 * math.sin(near)
    queries[there, SLOTS["visual"]] = 1.5
    queries[nowhere, SLOTS["visual"]] = 1.9 - queries[nowhere, SLOTS["any"]]
    values = _part(attention.v_proj, group, shape)
    row = shape.head_dim - 1
    values[row] = 0.0
    values[row, SLOTS["picture"]] = 0.5
    attention.o_proj.weight[SLOTS[slot], head * shape.head_dim + row] = 1.2


def _point_at(
    attention: Attention, head: int, queries: dict[str, float], keys: dict[str, float], *, near: bool = False
) -> None:
    """Tokens with the slots of `queries` look at those with the slots of `keys`, at `near` ones first; where there are
    none, at the start of a turn."""
    shape = attention.shape
    half = shape.head_dim // 2
    asking = _part(attention.q_proj, head, shape)
    asked = _part(attention.k_proj, head // (shape.heads // shape.kv_heads), shape)
    asking.zero_()
    asked.mul_(0.1)
    nowhere, there = half - 1, half - 2
    asking[nowhere, SLOTS["any"]] = 1.0
    asked[[nowhere, there]] = 0.0
    asked[nowhere, SLOTS["turn"]] = 8.0
    for slot, strength in queries.items():
        asking[there, SLOTS[slot]] = strength
    for slot, strength in keys.items():
        asked[there, SLOTS[slot]] = strength
    if near:
        for slot, strength in queries.items():
            asking[list(NEAR_PAIRS), SLOTS[slot]] = strength / 4
        asked[list(NEAR_PAIRS)] = 0.0
        asked[list(NEAR_PAIRS), SLOTS["any"]] = 1.0


def _part(projection: nn.Linear, head: int, shape: ModelShape) -> Tensor:
    return projection.weight[head * shape.head_dim : (head + 1) * shape.head_dim]
