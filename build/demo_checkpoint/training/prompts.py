"""Training sequences: a video once, then many questions that do not see each other, each exactly as if it were asked
alone."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from build.demo_checkpoint.model import Layout
from build.demo_checkpoint.vocabulary import build_tokenizer
from build.demo_checkpoint.world.questions import BETWEEN_SCENES, Evidence, Line, Question, Track
from build.demo_checkpoint.world.world import COLUMNS, ROWS, Thing

CELLS = ROWS * COLUMNS
Part = Literal["video", "asked"]
NOWHERE = (0,)
"""Where to look when there is nothing to be found: the first token."""

RELATIONS = frozenset({"after", "before", "left", "in the scene", "next scene"})
"""Those of `Evidence`: what is only found through something else."""

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
class Tokens:
    """Part of a prompt: `token_ids` `[tokens]`, M-RoPE `positions` `[3, tokens]`, `asked` `[tokens]` marks answers,
    to be predicted."""

    token_ids: np.ndarray
    positions: np.ndarray
    asked: np.ndarray
    pointers: tuple[Pointer, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Example:
    """The prompt up to the end of a video, and every question as it would follow alone. `rows` `[visual tokens, 2]`:
    the temporal patch and the cell of each visual token."""

    video: Tokens
    questions: tuple[Tokens, ...]
    rows: np.ndarray


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


@dataclass(frozen=True)
class Batch:
    """Examples as `LanguageModel.forward` takes them.

    `asked` `[tokens]` marks the tokens to predict; `owners` `[tokens]` numbers the questions of all examples, in order,
    from 0; -1 is no question. `pointers`: for a site, those of the videos and those of the questions. `sought`: tokens
    that look for evidence, and for which.
    """

    token_ids: Tensor
    positions: Tensor
    layout: Layout
    visual: Tensor
    asked: Tensor
    owners: Tensor
    pointers: dict[tuple[str, Part], Pointers]
    sought: tuple[tuple[int, Evidence], ...]

    def to(self, device: torch.device) -> Batch:
        layout = replace(self.layout, causal=self.layout.causal.to(device), mask=self.layout.mask.to(device))
        tensors = (self.token_ids, self.positions, self.visual, self.asked, self.owners)
        token_ids, positions, visual, asked, owners = (tensor.to(device) for tensor in tensors)
        pointers = {key: mine.to(device) for key, mine in self.pointers.items()}
        return Batch(token_ids, positions, layout, visual, asked, owners, pointers, self.sought)


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return build_tokenizer()


@lru_cache(maxsize=200_000)
def encode(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=200_000)
def encode_spans(text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Token ids and the characters that each stands for."""
    encoded = tokenizer().encode(text, add_special_tokens=False)
    return tuple(encoded.ids), tuple(encoded.offsets)


@lru_cache(maxsize=64)
def special(name: str) -> int:
    token: int | None = tokenizer().token_to_id(name)
    if token is None:
        raise KeyError(f"{name} is no token of the vocabulary")
    return token


def write_example(
    timestamps: Sequence[str],
    questions: Sequence[Question],
    *,
    track: Track | None = None,
    order: np.ndarray | None = None,
    gaps: np.ndarray | None = None,
) -> Example:
    """The prompt of a video and its questions.

    `track`: what is shown, for the pointers, and the subtitle lines. `order` `[6]` writes the visual tokens of every
    temporal patch in another order, each with its own position, so that place cannot be read from order; `gaps`
    `[patches]` are added to the positions before each patch, so that far apart is familiar.
    """
    token_ids: list[int] = list(encode("<|im_start|>user\n<|vision_start|>"))
    positions: list[tuple[int, int, int]] = [(i, i, i) for i in range(len(token_ids))]
    rows: list[tuple[int, int]] = []
    places: list[list[int]] = []
    pointers: list[Pointer] = []
    order = np.arange(CELLS) if order is None else order
    pad, vision_start, vision_end = special("<|video_pad|>"), special("<|vision_start|>"), special("<|vision_end|>")
    at = len(token_ids)
    lines = deque(track.lines if track else ())
    places_of_lines: list[list[int]] = []

    def write_lines(until: float) -> None:
        """A line comes before the picture that is shown as it begins."""
        nonlocal at
        while lines and float(lines[0].time) <= until:
            text, named, own = _write_line(lines.popleft(), len(token_ids))
            positions.extend((at + i,) * 3 for i in range(len(text)))
            at += len(text)
            token_ids.extend(text)
            pointers.extend(own)
            places_of_lines.append([named])

    for patch, timestamp in enumerate(timestamps):
        write_lines(float(timestamp))
        at += 0 if gaps is None else int(gaps[patch])
        text = (*encode(f"<{timestamp} seconds>"), vision_start)
        positions += [(at + i,) * 3 for i in range(len(text))]
        at += len(text)
        positions += [(at, at + int(cell) // COLUMNS, at + int(cell) % COLUMNS) for cell in order]
        at += max(ROWS, COLUMNS)
        positions.append((at, at, at))
        at += 1
        stamp, first = len(token_ids) + len(text) - 3, len(token_ids) + len(text)
        pointers += [Pointer("stamp", first + i, (stamp,), True) for i in range(CELLS + 1)]
        places.append([first + int(i) for i in np.argsort(order)])
        if patch:
            pointers += [Pointer("cell before", *cells, True) for cells in _pairs(places[-1], places[-2])]
        token_ids += [*text, *[pad] * CELLS, vision_end]
        rows += [(patch, int(cell)) for cell in order]
    write_lines(math.inf)
    token_ids.append(vision_end)
    positions.append((at, at, at))
    at += 1
    pointers += _gather_pointers(token_ids, in_video=True)
    if track:
        pointers += _thing_pointers(track.things, places)
        pointers += _scene_pointers(track.scenes, places, end=len(token_ids) - 1)
    # As `Evidence` counts them.
    places += [[len(token_ids) - 1], *places_of_lines]
    video = Tokens(np.array(token_ids), np.array(positions).T, np.zeros(len(token_ids), bool), tuple(pointers))
    tokens = tuple(_write_question(question, at, places, track.things if track else []) for question in questions)
    return Example(video, tokens, np.array(rows))


def _write_line(line: Line, start: int) -> tuple[tuple[int, ...], int, list[Pointer]]:
    """The tokens of a subtitle line that begins at the token `start`, the last one of the thing that it names, and what
    that one looks at: its time, and the word before."""
    before, text = f"<{line.time} seconds>Subtitle: ", f"<{line.time} seconds>Subtitle: {line.text}\n"
    token_ids, spans = encode_spans(text)
    name = _spanned(spans, len(before), len(line.text))
    unit = _spanned(spans, 1 + len(line.time), len(" seconds"))[-1]
    named = start + name[-1]
    pointers = [Pointer("stamp", named, (start + unit,), True)]
    if len(name) > 1:
        pointers.append(Pointer("digit 1", named, (named - 1,), True))
    return token_ids, named, pointers


def _pairs(rows: Sequence[int], keys: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    return [(row, (key,)) for row, key in zip(rows, keys, strict=True)]


def _gather_pointers(token_ids: Sequence[int], *, in_video: bool) -> list[Pointer]:
    """Where a time is written, its unit looks at its digits."""
    units = _units()
    digits = {encode(str(digit))[0] for digit in range(10)}
    pointers = []
    for row, token in enumerate(token_ids):
        if token not in units or token_ids[row - 1] not in digits:
            continue
        for back in (1, 3, 4, 5):
            if token_ids[row - back] not in digits:
                break
            pointers.append(Pointer(f"digit {back}", row, (row - back,), in_video))
    return pointers


@lru_cache(maxsize=1)
def _units() -> frozenset[int]:
    return frozenset(encode(unit)[0] for unit in (" seconds", "秒"))


def _thing_pointers(things: Sequence[Sequence[tuple[Thing, int]]], places: Sequence[Sequence[int]]) -> list[Pointer]:
    pointers = []
    begun: tuple[int, ...] = ()
    earlier: dict[Thing, list[int]] = defaultdict(list)
    current: dict[Thing, list[int]] = {}
    for patch, shown in enumerate(things):
        before = dict(things[patch - 1]) if patch else {}
        fresh = []
        for cell, row in enumerate(places[patch]):
            if _shows(shown, cell, "nothing"):
                pointers += [Pointer(site, row, NOWHERE, True) for site in ("nothing before", "nothing begun")]
        for thing in [thing for thing in current if thing not in before]:
            earlier[thing] += current.pop(thing)
        for index, (thing, cell) in enumerate(shown):
            row = places[patch][cell]
            pointers.append(Pointer("rest", row, NOWHERE, True))
            beside = [places[patch][other] for _, other in shown[:index]]
            if all(place < row for place in beside):
                pointers.append(Pointer("beside", row, tuple(beside) or NOWHERE, True))
            pointers.append(Pointer("earlier", row, tuple(earlier[thing]) or NOWHERE, True))
            current.setdefault(thing, []).append(row)
            if thing in before:
                last = (places[patch - 1][before[thing]],)
                pointers.append(Pointer("same before", row, last, True))
            else:
                last = NOWHERE
                fresh.append(row)
            pointers.append(Pointer("time before", row, last, True))
            pointers.append(Pointer("begun before", row, begun if thing not in before and begun else NOWHERE, True))
        begun = tuple(fresh) or begun
    return pointers


def _scene_pointers(scenes: Sequence[int], places: Sequence[Sequence[int]], *, end: int) -> list[Pointer]:
    """`end`: the last token of the video, which takes the last scene's last time."""
    pointers = []
    begun: tuple[int, ...] = NOWHERE
    last: tuple[int, ...] = NOWHERE
    current = BETWEEN_SCENES
    for scene, mine in zip(scenes, map(tuple, places), strict=True):
        if scene == BETWEEN_SCENES:
            continue
        pointers += [Pointer("scene's start", row, begun, True) for row in mine]
        if scene != current:
            current, begun = scene, mine
        last = mine
    return [*pointers, Pointer("scene's start", end, begun, True), Pointer("cell before", end, last, True)]


def _write_question(
    question: Question, at: int, places: Sequence[Sequence[int]], things: Sequence[Sequence[tuple[Thing, int]]]
) -> Tokens:
    token_ids: list[int] = []
    asked: list[bool] = []
    pointers: list[Pointer] = []
    text = ""
    spans: list[tuple[int, int]] = []
    for number, turn in enumerate(question.turns):
        opening = "\n<|im_start|>user\n" if number else ""
        prompt, prompt_spans = encode_spans(f"{opening}{turn.question}<|im_end|>\n<|im_start|>assistant\n")
        answer, answer_spans = encode_spans(f"{turn.answer}<|im_end|>")
        spans += [(len(text) + first, len(text) + last) for first, last in prompt_spans]
        text += f"{opening}{turn.question}<|im_end|>\n<|im_start|>assistant\n"
        start = len(token_ids) + len(prompt)
        named = []
        for name in turn.about:
            tokens = _spanned(spans, text.lower().rindex(name.lower()), len(name))
            # A time is told by its unit, which follows.
            named.append(tokens[-1] + name[0].isdigit())
            if not name[0].isdigit() and len(tokens) > 1:
                pointers.append(Pointer("digit 1", named[-1], (named[-1] - 1,), False))
        token_ids += [*prompt, *answer]
        asked += [False] * len(prompt) + [True] * len(answer)
        for row in range(start - 1, len(token_ids) - 1):
            # Without a name, the next is found by the time that was told last.
            about = named or [i for i in range(start, row + 1) if token_ids[i] in _units()][-1:]
            pointers.append(
                Pointer("about", row, tuple(about), False) if about else Pointer("about", row, NOWHERE, True)
            )
            pointers.append(Pointer("settled", row, tuple(range(row + 1)), False))
        spans += [(len(text) + first, len(text) + last) for first, last in answer_spans]
        text += f"{turn.answer}<|im_end|>"
        tokens_named = dict(zip(turn.about, named, strict=True))
        for evidence in turn.compared if things else ():
            keys = _places_of(evidence, places, things)
            pointers.append(Pointer(_evidence_site(evidence), tokens_named[evidence.said], keys, True, evidence))
        related = {evidence.relation for evidence in turn.evidence}
        for relation in sorted(RELATIONS - related) if things else ():
            pointers += [Pointer(f"not {relation}", row, NOWHERE, True) for row in range(start - 1, len(token_ids) - 1)]
        said = 0
        for evidence in turn.evidence if things else ():
            said = turn.answer.lower().index(evidence.said.lower(), said)
            in_video = evidence.relation != "left"
            keys = _places_of(evidence, places, things) if in_video else (tokens_named[evidence.said],)
            for token in _spanned(answer_spans, said, len(evidence.said)):
                pointers.append(Pointer(_evidence_site(evidence), start + token - 1, keys, in_video, evidence))
                if evidence.relation:
                    # What is only found through something else is not to be guessed before.
                    pointers.append(Pointer("evidence", start + token - 1, NOWHERE, True))
            said += len(evidence.said)
    pointers += _gather_pointers(token_ids, in_video=False)
    positions = np.tile(at + np.arange(len(token_ids)), (3, 1))
    return Tokens(np.array(token_ids), positions, np.array(asked), tuple(pointers))


def _places_of(
    evidence: Evidence, places: Sequence[Sequence[int]], things: Sequence[Sequence[tuple[Thing, int]]]
) -> tuple[int, ...]:
    """The visual tokens that show it."""
    shown = (
        place
        for patch in evidence.patches
        for cell, place in enumerate(places[patch])
        if patch >= len(things) or _shows(things[patch], cell, evidence.thing)
    )
    return tuple(shown) or NOWHERE


def _shows(things: Sequence[tuple[Thing, int]], cell: int, what: Thing | Literal["nothing"] | None) -> bool:
    if what == "nothing":
        return cell not in {taken for _, taken in things}
    return what is None or (what, cell) in things


def _evidence_site(evidence: Evidence) -> str:
    if evidence.relation:
        return evidence.relation
    if isinstance(evidence.sought, str):
        return "evidence by time"
    return "evidence by thing" if evidence.sought and evidence.sought == evidence.thing else "evidence"


def _spanned(spans: Sequence[tuple[int, int]], start: int, length: int) -> list[int]:
    """The tokens whose characters overlap those from `start` on."""
    return [i for i, (first, last) in enumerate(spans) if first < start + length and last > start]


def collate(examples: Sequence[Example]) -> Batch:
    """Pads videos and their questions, one behind the other, to the longest; padding sees itself only."""
    # Few different shapes: oneDNN compiles its kernels for each.
    video_tokens = _round_up(max(len(example.video) for example in examples), 32)
    asked_tokens = _round_up(max(sum(map(len, example.questions)) for example in examples), 64)
    videos = len(examples)
    total = videos * (video_tokens + asked_tokens)
    token_ids, owners = np.zeros(total, np.int64), np.full(total, -1)
    positions, asked = np.zeros((3, total), np.float32), np.zeros(total, bool)
    seen = np.zeros((videos, 1, video_tokens), bool)
    pointers: dict[tuple[str, Part], list[tuple[int, int, list[int]]]] = defaultdict(list)
    sought: list[tuple[int, Evidence]] = []
    owner = 0
    for video, example in enumerate(examples):
        seen[video, :, : len(example.video)] = True
        for pointer in example.video.pointers:
            pointers[pointer.site, "video"].append((video, pointer.row, list(pointer.keys)))
        parts, starts = [example.video], [video * video_tokens]
        offset = 0
        for question in example.questions:
            start = videos * video_tokens + video * asked_tokens + offset
            owners[start : start + len(question)] = owner
            owner += 1
            parts.append(question)
            starts.append(start)
            for pointer in question.pointers:
                shift = 0 if pointer.in_video else video_tokens + offset
                keys = [shift + key for key in pointer.keys]
                pointers[pointer.site, "asked"].append((video, offset + pointer.row, keys))
                if pointer.evidence and pointer.evidence.sought:
                    sought.append((start + pointer.row, pointer.evidence))
            offset += len(question)
        for part, start in zip(parts, starts, strict=True):
            span = slice(start, start + len(part))
            token_ids[span], positions[:, span], asked[span] = part.token_ids, part.positions, part.asked
    own = owners[videos * video_tokens :].reshape(videos, asked_tokens)
    same = (own[:, :, None] == own[:, None, :]) & np.tril(np.ones((asked_tokens, asked_tokens), bool))
    seen = np.broadcast_to(seen, (videos, asked_tokens, video_tokens))
    mask = _added(np.concatenate([seen, same], axis=2)[:, None])
    causal = _added(np.tril(np.ones((1, 1, video_tokens, video_tokens), bool)))
    return Batch(
        torch.from_numpy(token_ids),
        torch.from_numpy(positions),
        Layout(videos, video_tokens, asked_tokens, causal, mask),
        torch.from_numpy(np.flatnonzero(token_ids == special("<|video_pad|>"))),
        torch.from_numpy(asked),
        torch.from_numpy(owners),
        {key: _pointers(entries) for key, entries in pointers.items()},
        tuple(sought),
    )


def _pointers(entries: Sequence[tuple[int, int, list[int]]]) -> Pointers:
    videos, rows, keys = zip(*entries, strict=True)
    owners = np.repeat(np.arange(len(keys)), [len(mine) for mine in keys])
    return Pointers(
        *(torch.tensor(values) for values in (videos, rows, owners, [key for mine in keys for key in mine]))
    )


def _added(seen: np.ndarray) -> Tensor:
    """What is added to the scores: 0 where a token is seen, a large negative number where it is not."""
    return torch.from_numpy(np.where(seen, np.float32(0), np.float32(-30_000)))


def _round_up(tokens: int, multiple: int) -> int:
    return -(-tokens // multiple) * multiple
