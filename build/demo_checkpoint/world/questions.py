"""Questions about a video and the rule that judges an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from build.demo_checkpoint.world import wording
from build.demo_checkpoint.world.wording import AND, QUESTIONS, Language
from build.demo_checkpoint.world.world import COLUMNS, THINGS, Thing

BETWEEN_SCENES = -1


@dataclass(frozen=True)
class Evidence:
    """Where to look for a piece of an answer: the temporal patches, and the thing in them, or the cells where there is
    "nothing" (None: the whole picture). Without patches there is nothing to be found. The patch after the last one
    stands for the end of the video, those after it for the subtitle lines.

    `sought`: what it is found by, a thing or a time. `relation`: what is in the patches began right "after" the thing
    sought; or is the thing sought itself, which tells what began "before" it; or is the "left" one of those named in
    the question, and is there; or is "in the scene" that begins at the time told last; or begins the "next scene".
    """

    said: str
    patches: tuple[int, ...]
    thing: Thing | Literal["nothing"] | None
    sought: Thing | str | None = None
    relation: Literal["", "after", "before", "left", "in the scene", "next scene"] = ""


@dataclass(frozen=True)
class Turn:
    """`about`: what is asked about, a thing or a time, as it is written in this question or before; `evidence` follows
    the answer's order; `compared`: where to look for things that the question names, before it is answered."""

    question: str
    answer: str
    about: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    compared: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Question:
    """A conversation about one video; `kind` and the answer of the last turn are what is judged."""

    kind: str
    language: Language
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Line:
    """A subtitle line that names a thing, from a time on that is written as in the prompt."""

    time: str
    thing: Thing
    language: Language

    @property
    def text(self) -> str:
        return wording.name(self.thing, self.language)


@dataclass(frozen=True)
class Track:
    """The truth about each temporal patch of a video: its timestamp as written in the prompt, its things and their
    cells in reading order, and its scene; and the subtitle lines beside them, in order."""

    timestamps: tuple[str, ...]
    things: tuple[tuple[tuple[Thing, int], ...], ...]
    scenes: tuple[int, ...]
    lines: tuple[Line, ...] = ()

    @cached_property
    def seen(self) -> dict[Thing, list[int]]:
        """The temporal patches that show each thing."""
        patches: dict[Thing, list[int]] = {}
        for patch, shown in enumerate(self.things):
            for thing, _ in shown:
                patches.setdefault(thing, []).append(patch)
        return patches

    @cached_property
    def runs(self) -> dict[Thing, list[tuple[int, int]]]:
        """First and last temporal patch of each appearance of each thing."""
        runs: dict[Thing, list[tuple[int, int]]] = {}
        for thing, patches in self.seen.items():
            mine = runs[thing] = [(patches[0], patches[0])]
            for patch in patches[1:]:
                if mine[-1][1] == patch - 1:
                    mine[-1] = (mine[-1][0], patch)
                else:
                    mine.append((patch, patch))
        return runs

    @cached_property
    def starts(self) -> list[tuple[int, Thing]]:
        """Every appearance's first temporal patch, in order."""
        return sorted((first, thing) for thing, runs in self.runs.items() for first, _ in runs)

    @cached_property
    def fixed_cells(self) -> dict[Thing, int]:
        """The cell of each thing that is only ever shown in one."""
        cells: dict[Thing, set[int]] = {}
        for shown in self.things:
            for thing, cell in shown:
                cells.setdefault(thing, set()).add(cell)
        return {thing: next(iter(mine)) for thing, mine in cells.items() if len(mine) == 1}


def track_of(timestamps: Sequence[str], cells: np.ndarray, scenes: Iterable[int]) -> Track:
    """From the cells `[patches, 6]` (indices in THINGS, or negative) and scenes `[patches]` of a pool's video."""
    shown = tuple(tuple((THINGS[index], cell) for cell, index in enumerate(row) if index >= 0) for row in cells)
    return Track(tuple(timestamps), shown, tuple(int(scene) for scene in scenes))


def _pick(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))] if items else None


def _share_a_digit(one: Thing, other: Thing) -> bool:
    numbers = one.kind == other.kind == "number"
    return numbers and any(digit == there for digit, there in zip(one.name, other.name, strict=True))


class Asker:
    """Draws questions of each kind about one video in one language; a method returns None where the video offers
    nothing to ask."""

    def __init__(self, track: Track, language: Language, rng: np.random.Generator) -> None:
        self.track, self.language, self.rng = track, language, rng
        self.once = [thing for thing in track.seen if len(track.runs[thing]) == 1]
        self._seconds = [float(timestamp) for timestamp in track.timestamps]

    def ask(self, kind: str) -> Question | None:
        """A random question of a kind, one of `KINDS`; None if the video offers none."""
        turns = KINDS[kind](self)
        return Question(kind, self.language, tuple(turns)) if turns else None

    def _turn(self, kind: str, answer: str, evidence: Sequence[Evidence] = (), **named: Thing | str) -> Turn:
        phrasing = _pick(self.rng, QUESTIONS[kind][self.language])
        names = {key: self._name(what) if isinstance(what, Thing) else what for key, what in named.items()}
        # A name that the phrasing leaves out ("it") was written before.
        return Turn(phrasing.format(**names), answer, tuple(names.values()), tuple(evidence))

    def _name(self, thing: Thing) -> str:
        return wording.name(thing, self.language)

    def _seen_in(self, thing: Thing, patches: Sequence[int]) -> Evidence:
        return Evidence(self._name(thing), tuple(patches), thing)

    def _absent(self) -> Thing:
        """Often what a subtitle line mentions, or a number that is nearly the one shown."""
        seen = self.track.seen
        mentioned = [line.thing for line in self.track.lines if line.thing not in seen]
        if mentioned and self.rng.random() < 0.5:
            return _pick(self.rng, mentioned)
        alike = [thing for thing in THINGS if thing not in seen and any(_share_a_digit(thing, other) for other in seen)]
        if alike and self.rng.random() < 0.3:
            return _pick(self.rng, alike)
        while (thing := THINGS[int(self.rng.integers(len(THINGS)))]) in seen or (
            self.rng.random() < 0.6 and (thing.kind == "number")
        ):
            pass
        return thing

    def _when(self, kind: str, thing: Thing, **named: Thing) -> Turn:
        run = self.track.runs[thing][0]
        first, last = (self.track.timestamps[patch] for patch in run)
        if kind == "when in minutes":
            first, last = (wording.minutes(float(time)) for time in (first, last))
        evidence = [Evidence("From" if self.language == "en" else "从", tuple(self.track.seen[thing]), thing, thing)]
        # The last time is told by all of them, each of which knows the one before it.
        evidence += [
            Evidence(first, run[:1], thing, thing),
            Evidence(last, tuple(self.track.seen[thing]), thing, thing),
        ]
        write = wording.interval_in_minutes if kind == "when in minutes" else wording.interval
        return self._turn(kind, write(first, last, self.language), evidence, **named)

    def when(self) -> list[Turn] | None:
        thing = _pick(self.rng, self.once)
        return thing and [self._when("when", thing, x=thing)]

    def when_in_minutes(self) -> list[Turn] | None:
        thing = _pick(self.rng, self.once)
        return thing and [self._when("when in minutes", thing, x=thing)]

    def not_shown(self) -> list[Turn] | None:
        kind = _pick(self.rng, ("when", "when", "when in minutes", "how many", "where"))
        answer, thing = wording.NOT_SHOWN[self.language], self._absent()
        return [self._turn(kind, answer, [Evidence(answer, (), None, thing)], x=thing)]

    def what_at(self) -> list[Turn] | None:
        patches = [patch for patch, scene in enumerate(self.track.scenes) if scene != BETWEEN_SCENES]
        busy = [patch for patch in patches if self.track.things[patch]]
        patch = _pick(self.rng, busy if self.rng.random() < 0.8 else patches)
        if patch is None:
            return None
        things = [thing for thing, _ in self.track.things[patch]]
        answer, time = wording.listing(things, self.language), self._time_near(patch)
        evidence = [
            Evidence(f"{AND[self.language] if index else ''}{self._name(thing)}", (patch,), thing, time)
            for index, thing in enumerate(things)
        ]
        # That no other thing follows is to be seen there as well: with nowhere to look, a long video's time that is
        # most like it would be taken for it.
        evidence.append(Evidence(answer[-1] if things else answer, (patch,), "nothing", time))
        return [self._turn("what at", answer, evidence, t=time)]

    def _time_near(self, patch: int) -> str:
        """The patch's timestamp, or a time nearer to it than to any other: towards one that shows the same, or, where
        scenes are in no order, up to half a second from its own."""
        track, here = self.track, self._seconds[patch]
        if self.rng.random() < 0.5:
            return track.timestamps[patch]
        side = 1 if self.rng.random() < 0.5 else -1
        gap, other = min(
            ((side * (there - here), index) for index, there in enumerate(self._seconds) if side * (there - here) > 0),
            default=(0.0, patch),
        )
        if (track.things[other], track.scenes[other]) != (track.things[patch], track.scenes[patch]):
            gap = min(gap, 1.0) if self._seconds != sorted(self._seconds) else 0.0
        return f"{here + side * float(self.rng.uniform(0, 0.5)) * gap:.1f}"

    def where(self) -> list[Turn] | None:
        thing = _pick(self.rng, [thing for thing in self.once if thing in self.track.fixed_cells])
        return thing and [self._where("where", thing, x=thing)]

    def _where(self, kind: str, thing: Thing, **named: Thing) -> Turn:
        answer = wording.place(self.track.fixed_cells[thing], self.language)
        return self._turn(kind, answer, [Evidence(answer, tuple(self.track.seen[thing]), thing, thing)], **named)

    def _which(self, kind: str) -> list[Turn] | None:
        shown = [thing for thing in self.track.seen if thing.kind == kind]
        if len(shown) != 1:
            return None
        evidence = [self._seen_in(shown[0], self.track.seen[shown[0]])]
        return [self._turn(f"which {kind}", wording.listing(shown, self.language), evidence)]

    def which_number(self) -> list[Turn] | None:
        return self._which("number")

    def which_word(self) -> list[Turn] | None:
        return self._which("word")

    def how_many(self) -> list[Turn] | None:
        often = [thing for thing in self.track.seen if thing not in self.once]
        thing = _pick(self.rng, often if often and self.rng.random() < 0.7 else list(self.track.seen))
        if thing is None:
            return None
        runs = self.track.runs[thing]
        first, last = runs[-1]
        evidence = [Evidence(str(len(runs)), tuple(range(first, last + 1)), thing, thing)]
        return [self._turn("how many", wording.times(len(runs), self.language), evidence, x=thing)]

    def _neighbour(self, thing: Thing, step: int) -> Thing | None:
        starts = self.track.starts
        index = next(i for i, (_, other) in enumerate(starts) if other == thing) + step
        if not 0 <= index < len(starts):
            return None
        patch, other = starts[index]
        # Two things that appear together have no order.
        return (
            other if [first for first, _ in starts].count(patch) == 1 and patch != self.track.seen[thing][0] else None
        )

    def _next_to(self, kind: str, step: int) -> list[Turn] | None:
        pairs = [(thing, other) for thing in self.once if (other := self._neighbour(thing, step))]
        pair = _pick(self.rng, pairs)
        if pair is None:
            return None
        thing, other = pair
        # What comes next says itself what came before it.
        later = other if step > 0 else thing
        first = min(patch for patch in self.track.seen[later] if patch >= self.track.seen[thing][0])
        evidence = [Evidence(self._name(other), (first,), later, thing, "after" if step > 0 else "before")]
        return [self._turn(kind, wording.listing([other], self.language), evidence, x=thing)]

    def after(self) -> list[Turn] | None:
        return self._next_to("after", 1)

    def before(self) -> list[Turn] | None:
        return self._next_to("before", -1)

    def left(self) -> list[Turn] | None:
        pairs = [
            (thing, other)
            for shown in self.track.things
            for thing, cell in shown
            for other, other_cell in shown
            if cell % COLUMNS < other_cell % COLUMNS
            and thing in self.track.fixed_cells
            and other in self.track.fixed_cells
        ]
        pair = _pick(self.rng, pairs)
        if pair is None:
            return None
        first, second = pair if self.rng.random() < 0.5 else pair[::-1]
        evidence = [Evidence(self._name(pair[0]), (), None, relation="left")]
        turn = self._turn("left", wording.listing(pair[:1], self.language), evidence, x=first, y=second)
        compared = [Evidence(self._name(thing), tuple(self.track.seen[thing]), thing, thing) for thing in pair]
        return [replace(turn, compared=tuple(compared))]

    def summary(self) -> list[Turn] | None:
        """A line for every scene: what it shows, and its times. It ends where the next one begins: until then, nobody
        who has seen no more can know that it is over."""
        scenes = [scene for scene in dict.fromkeys(self.track.scenes) if scene != BETWEEN_SCENES]
        patches = [[patch for patch, other in enumerate(self.track.scenes) if other == scene] for scene in scenes]
        timestamps, end = self.track.timestamps, len(self.track.timestamps)
        lines: list[str] = []
        evidence: list[Evidence] = []
        for index, mine in enumerate(patches):
            things = list(dict.fromkeys(thing for patch in mine for thing, _ in self.track.things[patch]))
            last_one = index + 1 == len(patches)
            following = end if last_one else patches[index + 1][0]
            first, last = timestamps[mine[0]], timestamps[mine[-1] if last_one else following]
            line = wording.chapter(first, last, things, self.language)
            for number, thing in enumerate(things):
                comma = wording.COMMA[self.language] if number else ""
                there = tuple(patch for patch in mine if patch in self.track.seen[thing])
                evidence.append(Evidence(f"{comma}{self._name(thing)}", there, thing, relation="in the scene"))
            # Whether another thing follows is to be seen as well.
            colon = wording.COLON[self.language]
            evidence.append(Evidence(colon if things else line[: line.index(colon)], (), None, relation="in the scene"))
            evidence.append(Evidence(first, (mine[0],), None))
            evidence.append(Evidence(last, (following,), None, relation="next scene"))
            if not last_one:
                evidence.append(Evidence("\n", (following,), None, last))
            lines.append(line)
        return [self._turn("summary", "\n".join(lines), evidence)] if lines else None

    def said_at(self) -> list[Turn] | None:
        """Asks for the line that begins at a time, or nearer to it than any other."""
        index = _pick(self.rng, range(len(self.track.lines)))
        if index is None:
            return None
        line, place = self.track.lines[index], self._place_of_line(index)
        here, later = float(line.time), [float(other.time) for other in self.track.lines[index + 1 :]]
        room = min([1.0, *(time - here for time in later)]) / 2 if self.rng.random() < 0.5 else 0.0
        time = f"{here + float(self.rng.uniform(0, 0.9)) * room:.1f}"
        answer = wording.listing([line.thing], self.language)
        evidence = [Evidence(self._name(line.thing), (place,), None, time), Evidence(answer[-1], (), None, time)]
        return [self._turn("said at", answer, evidence, t=time)]

    def said_when(self) -> list[Turn] | None:
        mentioned = [line.thing for line in self.track.lines]
        thing = _pick(self.rng, [thing for thing in mentioned if mentioned.count(thing) == 1])
        if thing is None:
            return None
        index = mentioned.index(thing)
        line, place = self.track.lines[index], self._place_of_line(index)
        answer = wording.at(line.time, self.language)
        evidence = [Evidence(said, (place,), thing, thing) for said in (answer[: answer.index(line.time)], line.time)]
        return [self._turn("said when", answer, evidence, x=thing)]

    def _place_of_line(self, index: int) -> int:
        return len(self.track.timestamps) + 1 + index

    def follow_up(self) -> list[Turn] | None:
        """A question whose answer, or which itself, names one thing that appears once, and then one about "it"."""
        opening = _pick(self.rng, (self.when, self.after, self.before, self.left, self.which_number, self.which_word))()
        if opening is None:
            return None
        text = opening[0].question if opening[0].answer.startswith(("From", "从")) else opening[0].answer
        it = next((thing for thing in self.once if self._name(thing).lower() in text.lower()), None)
        if it is None:
            return None
        if it in self.track.fixed_cells and (self.rng.random() < 0.5 or text == opening[0].question):
            return [*opening, self._where("it where", it, it=it)]
        if text == opening[0].question:
            return None
        return [*opening, self._when("it when", it, it=it)]


KINDS: dict[str, Callable[[Asker], list[Turn] | None]] = {
    "when": Asker.when,
    "when in minutes": Asker.when_in_minutes,
    "what at": Asker.what_at,
    "not shown": Asker.not_shown,
    "where": Asker.where,
    "which number": Asker.which_number,
    "which word": Asker.which_word,
    "how many": Asker.how_many,
    "after": Asker.after,
    "before": Asker.before,
    "left": Asker.left,
    "summary": Asker.summary,
    "said at": Asker.said_at,
    "said when": Asker.said_when,
    "follow-up": Asker.follow_up,
}


_TIME = re.compile(r"\d+:\d\d|\d+\.\d+")


def is_right(question: Question, answer: str, *, moments: Sequence[float]) -> bool:
    """Judges an answer to the last turn: the same words as the truth, the things of a list in any order, and every
    time within one sampling interval (a mm:ss within that and the second that it drops).

    moments: the sampled seconds, in order; what is between two of them nobody has seen
    """
    truth = question.turns[-1].answer
    answer = answer.strip()
    if question.kind == "what at":
        return _members(answer, question.language) == _members(truth, question.language)
    if _TIME.sub("t", answer) != _TIME.sub("t", truth):
        return False
    pairs = zip(_TIME.findall(answer), _TIME.findall(truth), strict=True)
    return all(
        abs(_seconds(told) - _seconds(true))
        <= _interval(moments, _seconds(true), _seconds(told)) + (":" in told) + 1e-6
        for told, true in pairs
    )


def _interval(moments: Sequence[float], true: float, told: float) -> float:
    """From the sampled moment next to the true one to its neighbour on the side of what was told; at an end of the
    video, to the one that it has. 0 where there is one moment only."""
    nearest = min(range(len(moments)), key=lambda index: abs(moments[index] - true))
    side = 1 if told > true else -1
    sampled = range(len(moments))
    neighbour = next((index for index in (nearest + side, nearest - side) if index in sampled), nearest)
    return abs(moments[neighbour] - moments[nearest])


def _members(answer: str, language: Language) -> set[str]:
    return set(re.split(" and |和", answer.lower().rstrip(".。")))


def _seconds(text: str) -> float:
    if ":" not in text:
        return float(text)
    minutes, seconds = text.split(":")
    return 60.0 * int(minutes) + int(seconds)
