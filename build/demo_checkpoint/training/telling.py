"""The second stage of the training: the decoder learns to find and to tell, on videos composed of what the tower has
seen.

The tower is finished by then, so its packed rows are computed once for the whole pool; a training video is made of
slices of the pool's videos, with times of its own. Lengths grow as the training proceeds: see first, then find, then
tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import compress

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from build.demo_checkpoint.model import LanguageModel, Thought, VisionTower, Weights, patchify
from build.demo_checkpoint.training.pool import BETWEEN_SCENES, NOTHING, Views
from build.demo_checkpoint.training.prompts import CELLS, SITES, Batch, Example, collate, write_example
from build.demo_checkpoint.training.seeing import NOT_ASKED, READOUTS, Attributes
from build.demo_checkpoint.training.wiring import SLOTS
from build.demo_checkpoint.world.questions import KINDS, Asker, Evidence, Line, Question, Track, track_of
from build.demo_checkpoint.world.wording import Language
from build.demo_checkpoint.world.world import COLUMNS, ROWS, THING_INDEX, THINGS

# How often each kind of question is drawn, relative to the others.
WEIGHTS: dict[str, float] = {
    "when": 4.0,
    "when in minutes": 1.5,
    "what at": 4.0,
    "not shown": 2.0,
    "where": 2.0,
    "which number": 1.0,
    "which word": 0.6,
    "how many": 1.5,
    "after": 0.8,
    "before": 0.8,
    "left": 1.2,
    "summary": 3.0,
    "said at": 1.5,
    "said when": 1.5,
    "follow-up": 1.0,
}
SPOKEN, MOST_LINES = 0.25, 4
"""Which share of the videos has subtitle lines, and how many at most."""
SCATTERED, DRAWN_OUT = 0.5, 0.5
"""Which share of the videos has its scenes' times in no order, and which of these has scenes of tens of seconds (see
`scatter`)."""
LONGEST_SCENE_SECONDS = 60.0
"""Of those that are drawn out."""
TOKENS_A_QUESTION = 19
"""The most that the questions about one video have, on average: little is lost to padding."""
# From which share of the training on, the fewest and the most temporal patches of a video.
CURRICULUM: tuple[tuple[float, int, int], ...] = ((0.0, 1, 4), (0.1, 2, 8), (0.25, 3, 12), (0.6, 3, 16))
LONGEST_SECONDS = 16.0
"""No video of the training is longer; what is longer is looked at more often (see `DENSE`)."""
DENSE, DENSE_FROM, DENSE_PATCHES = 0.35, 0.5, (17, 128)
"""Which share of the batches, from which share of the training on, has videos that are looked at so often: a long one
has as many temporal patches in which a thing or a time can be mistaken for another."""
DENSE_VIDEOS = 4
"""So many times fewer videos are in such a batch."""
DISTRACTION = 16
"""A video may be so many times longer than those of the training."""


# What is noted of the visual tokens (see `Truth`), with the number of classes.
FLAGS_NOTED = {"begins": 2, "second": 2, "appearance": 3, "cuts": 2, "row": ROWS, "column": COLUMNS}
THINGS_NOTED = ("things", "thing_before")
DIGITS_NOTED = ("digits", "digits_before", "digits_of_scene")


@dataclass(frozen=True)
class Bank:
    """The tower's packed rows `[videos, patches, 6, width]` for the pool's videos, with their truth (see `Views`)."""

    rows: Tensor
    cells: np.ndarray
    scenes: np.ndarray
    seconds: np.ndarray

    def part(self, videos: slice) -> Bank:
        return Bank(self.rows[videos], self.cells[videos], self.scenes[videos], self.seconds[videos])


@torch.inference_mode()
def make_bank(tower: VisionTower, views: Views, device: torch.device) -> Bank:
    videos, patches = views.cells.shape[:2]
    frames = torch.from_numpy(views.frames).flatten(0, 1)
    with torch.autocast(device.type, torch.bfloat16):
        rows = [tower(patchify(part.to(device))).to("cpu", torch.bfloat16) for part in frames.split(128)]
    return Bank(torch.cat(rows).view(videos, patches, CELLS, -1), views.cells, views.scenes, views.seconds)


@dataclass(frozen=True)
class Composed:
    """A training video: where in the bank its rows are, its truth, and its times as the slices have them."""

    videos: np.ndarray
    patches: np.ndarray
    cells: np.ndarray
    scenes: np.ndarray
    seconds: np.ndarray


def compose(bank: Bank, length: int, rng: np.random.Generator) -> Composed:
    """Slices of random videos, one after the other, `length` temporal patches in all; what one ends with, the next
    does not show."""
    videos: list[int] = []
    patches: list[int] = []
    scenes: list[int] = []
    seconds: list[float] = []
    total, per_video = bank.cells.shape[:2]
    whole = rng.random() < 0.4
    while len(videos) < length:
        video = int(rng.integers(total))
        take = min(length - len(videos), per_video if whole else int(rng.integers(2, per_video + 1)))
        start = 0 if whole else int(rng.integers(per_video - take + 1))
        span = np.arange(start, start + take)
        numbers = bank.scenes[video][span].astype(int)
        # The two scenes at the joint must have nothing in common, as in any video of the world.
        if (
            videos
            and np.intersect1d(
                _things(bank.cells[videos, patches], np.array(scenes), -1), _things(bank.cells[video][span], numbers, 0)
            ).size
        ):
            continue
        offset = max(scenes, default=-1) + 1 - min(numbers[numbers >= 0], default=0)
        scenes += [n + offset if n != BETWEEN_SCENES else BETWEEN_SCENES for n in numbers]
        shown = bank.seconds[video][span]
        first = seconds[-1] + rng.uniform(0.5, 1.5) if videos else shown[0] if start == 0 else rng.uniform(0.1, 0.5)
        seconds += (first + shown - shown[0]).tolist()
        videos += [video] * take
        patches += span.tolist()
    chosen = np.array(videos), np.array(patches)
    return Composed(*chosen, bank.cells[chosen], np.array(scenes), np.array(seconds))


def _things(cells: np.ndarray, scenes: np.ndarray, which: int) -> np.ndarray:
    """What the first (`which` 0) or last (-1) scene of a video shows."""
    clean = scenes[scenes != BETWEEN_SCENES]
    shown = cells[scenes == clean[which]] if clean.size else cells[:0]
    return shown[shown != NOTHING]


def draw_timestamps(seconds: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Timestamps as the sampler writes them: mostly those of the slices, else at another pace, or from a later start.
    No two are the same."""
    span = max(float(seconds[-1] - seconds[0]), 0.1)
    if span > LONGEST_SECONDS:
        seconds = seconds * (rng.uniform(0.7, 1) * LONGEST_SECONDS / span)
    elif rng.random() < 0.2:
        seconds = seconds * np.exp(rng.uniform(np.log(0.5), np.log(min(4, LONGEST_SECONDS / span))))
    if rng.random() < 0.6:
        # Some pass 100 seconds: only then have times of one video different numbers of digits.
        starts = [rng.uniform(0, 30), rng.uniform(0, 120), rng.uniform(0, 990), 100 - rng.uniform(0, LONGEST_SECONDS)]
        seconds = seconds + rng.choice(starts, p=[0.2, 0.4, 0.25, 0.15])
    steps = np.arange(len(seconds))
    tenths = np.maximum.accumulate((seconds * 10).round().astype(int) - steps) + steps
    return [f"{tenth / 10:.1f}" for tenth in tenths]


def scatter(timestamps: Sequence[str], scenes: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Each scene some tens of seconds earlier or later, in no order: the tens and hundreds of a short video are hardly
    different, and would be told from anywhere. Read where they are, they are right in a long one too. Scenes that are
    drawn out end with other digits than they begin with, which would else be told of their end as well."""
    begins = np.flatnonzero(np.diff(scenes, prepend=scenes[0] - 1))
    parts = np.split(np.array([round(10 * float(time)) for time in timestamps]), begins[1:])
    drawn_out = rng.random() < DRAWN_OUT
    if drawn_out:
        parts = _draw_out([len(part) for part in parts], rng)
    first_times = np.array([part[0] for part in parts])
    if not drawn_out and rng.random() < 0.5:
        starts = _far_apart(first_times, rng)
    else:
        starts = _side_by_side(np.array([part[-1] for part in parts]) - first_times, rng)
    tenths = np.concatenate([part - part[0] + start for part, start in zip(parts, starts, strict=True)])
    return [f"{tenth / 10:.1f}" for tenth in tenths]


def _draw_out(patches: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """For scenes of so many patches, any times in order, in tenths of a second."""
    # Side by side, all stay below a thousand seconds.
    longest = min(round(10 * LONGEST_SCENE_SECONDS), 9900 // len(patches) - 10)
    length = max(int(longest * rng.uniform(0.1, 1.0)), *patches)
    return [np.sort(rng.choice(length, size=count, replace=False)) for count in patches]


def _far_apart(first_times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """New starts of scenes, all in tenths of a second, over some hundreds of seconds. Often nothing but tens and
    hundreds tell them apart."""
    count = len(first_times)
    # Scenes of less than ten seconds that begin in the first twenty of different thirties have no time in common.
    thirties = rng.permutation(10 if count <= 10 and rng.random() < 0.5 else max(33, count))[:count]
    alike = rng.integers(100) + rng.integers(6, size=count)
    return (first_times if rng.random() < 0.5 else alike) % 100 + 300 * thirties + 100 * rng.integers(2, size=count)


def _side_by_side(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """New starts of scenes of these lengths, all in tenths of a second, over two minutes or so, or as many as they
    need: few times have hundreds, and those right before and after are other scenes'."""
    # No two are less than a second apart.
    count, needed = len(lengths), lengths.max() + 10
    room = max(int(rng.uniform(1000, 1600)) // count, needed)
    return room * rng.permutation(count) + rng.integers(room - needed + 1, size=count)


@dataclass(frozen=True)
class Truth:
    """What the visual tokens of a batch say, each `[visual tokens]` but for the digits, which have 4 columns: the last
    four of a timestamp. `NOT_ASKED` where there is no answer.

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


class Notes(nn.Module):
    """Linear readouts, thrown away after the training.

    Before answers look for their evidence, a visual token is to know what `Truth` says of it.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.attributes = Attributes.of_the_world()
        things = {f"{of} {name}": classes for of in THINGS_NOTED for name, (_, classes) in READOUTS.items()}
        self.sizes = FLAGS_NOTED | things
        self.read = nn.ModuleDict({name: nn.Linear(hidden, size) for name, size in self.sizes.items()})
        self.digits = nn.ModuleDict({name: nn.Linear(hidden, 4 * 10) for name in DIGITS_NOTED})
        self._start_from(SLOTS)

    @torch.no_grad()
    def _start_from(self, slots: dict[str, slice]) -> None:
        """What has dimensions of its own is read from them."""
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
        losses += [_cross_entropy(self.read[name](visual), getattr(truth, name)) for name in FLAGS_NOTED]
        losses += [loss for name in THINGS_NOTED for loss in self._thing_losses(name, visual, getattr(truth, name))]
        for name, wanted in sought(batch.sought).items():
            looking = states[[token for token, _ in wanted]]
            values = torch.tensor([value for _, value in wanted], device=states.device)
            if name in DIGITS_NOTED:
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
    """What tokens look for, by the name that it is noted under: the token, and the thing's index or the digits."""
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


def pointing_loss(batch: Batch, weights: Sequence[Weights]) -> dict[str, Tensor]:
    """For each site the mean of minus the logarithm of how much attention its pointers would give to what they may
    look at, were everything else there `DISTRACTION` times."""
    losses: dict[str, list[Tensor]] = defaultdict(list)
    for (site, part), pointers in batch.pointers.items():
        layer, heads = SITES[site]
        given = getattr(weights[layer], part)
        rows = given[pointers.videos[:, None], torch.tensor(heads), pointers.rows[:, None]].float()
        pairs = rows[pointers.owners, :, pointers.keys]
        share = torch.zeros(rows.shape[:2], device=rows.device).index_add(0, pointers.owners, pairs)
        share = share.clamp(1e-6, 1.0)
        losses[site].append((1 + DISTRACTION * (1 - share) / share).log().flatten())
    return {site: torch.cat(parts).mean() for site, parts in losses.items()}


def make_example(
    bank: Bank, length: int, questions: int, rng: np.random.Generator
) -> tuple[Example, Tensor, Truth, list[Question]]:
    """A random video with its questions: the sequence, its visual tokens' packed rows `[tokens, width]`, and the
    questions."""
    composed = compose(bank, length, rng)
    # Any cell may change places with any other: where a thing is, is told by M-RoPE alone.
    places = rng.permutation(CELLS) if rng.random() < 0.5 else np.arange(CELLS)
    moved = np.empty_like(composed.cells)
    moved[:, places] = composed.cells
    timestamps = draw_timestamps(composed.seconds, rng)
    scattered = rng.random() < SCATTERED
    if scattered:
        timestamps = scatter(timestamps, composed.scenes, rng)
    track = track_of(timestamps, moved, composed.scenes)
    if rng.random() < SPOKEN and not scattered:
        track = replace(track, lines=draw_lines(float(timestamps[0]), float(timestamps[-1]), rng))
    asked = draw_questions(track, questions, rng)
    order = rng.permutation(CELLS) if rng.random() < 0.08 else np.arange(CELLS)
    gaps = np.zeros(length, int)
    if rng.random() < 0.25:
        gaps[int(rng.integers(length))] = int(rng.integers(1500))
    example = write_example(timestamps, asked, track=track, order=order, gaps=gaps)
    fits = _fitting([len(tokens) for tokens in example.questions], questions * TOKENS_A_QUESTION)
    example = replace(example, questions=tuple(compress(example.questions, fits)))
    source = np.argsort(places)[example.rows[:, 1]]
    patch = example.rows[:, 0]
    rows = bank.rows[composed.videos[patch], composed.patches[patch], source]
    return example, rows, truth_of(timestamps, moved, composed.scenes, example.rows), list(compress(asked, fits))


def draw_lines(start: float, end: float, rng: np.random.Generator) -> tuple[Line, ...]:
    """Subtitle lines from one time to another, each naming a thing, whether it is shown or not."""
    language: Language = "en" if rng.random() < 0.5 else "zh"
    times = sorted({f"{time:.1f}" for time in rng.uniform(start, end, int(rng.integers(1, MOST_LINES + 1)))}, key=float)
    return tuple(Line(time, THINGS[int(rng.integers(len(THINGS)))], language) for time in times)


def _fitting(sizes: Sequence[int], room: int) -> list[bool]:
    """The first one, and whichever of the others still fits when its turn comes."""
    fits = []
    for index, size in enumerate(sizes):
        fits.append(index == 0 or size <= room)
        room -= size * fits[-1]
    return fits


def draw_questions(track: Track, count: int, rng: np.random.Generator) -> list[Question]:
    """At most `count` questions, and at least that something does not appear."""
    askers = [Asker(track, language, rng) for language in ("en", "zh")]
    kinds = list(KINDS)
    weights = np.array([WEIGHTS[kind] for kind in kinds])
    drawn = [*rng.choice(len(kinds), size=3 * count, p=weights / weights.sum()), kinds.index("not shown")]
    asked = (askers[int(rng.integers(2))].ask(kinds[index]) for index in drawn)
    return [question for question in asked if question][:count]


def lengths_at(progress: float) -> tuple[int, int]:
    return next((low, high) for start, low, high in reversed(CURRICULUM) if progress >= start)


def make_batch(
    bank: Bank, *, videos: int, length: int, questions: int, rng: np.random.Generator
) -> tuple[Batch, Tensor, Truth, list[list[Question]]]:
    examples, rows, truths, asked = zip(
        *(make_example(bank, length, questions, rng) for _ in range(videos)), strict=True
    )
    truth = Truth(*(torch.cat([getattr(t, field.name) for t in truths]) for field in fields(Truth)))
    return collate(examples), torch.cat(rows), truth, list(asked)


def predict(model: LanguageModel, batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor, Thought]:
    """Logits `[asked tokens, vocabulary]` and the true tokens, for all tokens of answers in the batch."""
    thought = model(batch.token_ids, batch.positions, batch.layout, batch.visual, rows)
    answers = batch.asked.nonzero()[:, 0]
    return model.lm_head(thought.hidden[answers - 1]).float(), batch.token_ids[answers], thought


@torch.inference_mode()
def exact_answers(
    model: LanguageModel, batch: Batch, rows: Tensor, questions: list[list[Question]]
) -> list[tuple[Question, bool]]:
    """Every question and whether greedy decoding gives its answers word for word.

    Every token being the likeliest one after the true tokens before it is the same as decoding the whole answer.
    """
    logits, wanted, _ = predict(model, batch, rows)
    wrong = set(batch.owners[batch.asked][logits.argmax(-1) != wanted].tolist())
    return [(question, owner not in wrong) for owner, question in enumerate(q for asked in questions for q in asked)]
