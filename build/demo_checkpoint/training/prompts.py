"""Training sequences: a video once, then many questions that do not see each other, each exactly as if it were asked
alone."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from build.demo_checkpoint.training.attention_supervision import NOWHERE
from build.demo_checkpoint.training.writer import Span, Tokens, Writer, units
from build.demo_checkpoint.world.questions import BETWEEN_SCENES, Evidence, Line, Question, Track, Turn
from build.demo_checkpoint.world.world import CELLS, Thing

RELATIONS = frozenset({"after", "before", "left", "in the scene", "next scene"})
"""Those of `Evidence`: what is only found through something else."""
Things = Sequence[Sequence[tuple[Thing, int]]]
"""The things of each temporal patch, with their cells."""


@dataclass(frozen=True)
class Example:
    """The prompt up to the end of a video, and every question as it would follow alone. `rows` `[visual tokens, 2]`:
    the temporal patch and the cell of each visual token."""

    video: Tokens
    questions: tuple[Tokens, ...]
    rows: np.ndarray


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
    order = np.arange(CELLS) if order is None else order
    video = _VideoWriter()
    lines = deque(track.lines if track else ())
    video.text("<|im_start|>user\n<|vision_start|>")
    for patch, timestamp in enumerate(timestamps):
        # A line comes before the picture that is shown as it begins.
        while lines and float(lines[0].time) <= float(timestamp):
            video.line(lines.popleft())
        video.position += 0 if gaps is None else int(gaps[patch])
        video.patch(timestamp, order)
    for line in lines:
        video.line(line)
    video.text("<|vision_end|>")
    video.point_to_digits()
    if track:
        video.point_to_things(track.things)
        video.point_to_scenes(track.scenes)
    places = _Places([*video.patches, [len(video.token_ids) - 1], *video.lines], track.things if track else ())
    rows = np.array([(patch, int(cell)) for patch in range(len(timestamps)) for cell in order])
    return Example(
        video.tokens(), tuple(_write_question(question, video.position, places) for question in questions), rows
    )


def _write_question(question: Question, position: int, places: _Places) -> Tokens:
    """The turns of a conversation that begins at a position, after the video."""
    writer = _QuestionWriter(position, places)
    for number, turn in enumerate(question.turns):
        opening = "\n<|im_start|>user\n" if number else ""
        writer.text(f"{opening}{turn.question}<|im_end|>\n<|im_start|>assistant\n")
        named = writer.find_named(turn)
        answer = writer.text(f"{turn.answer}<|im_end|>", asked=True)
        writer.point_to_question(answer, list(named.values()))
        if places.things:
            writer.point_to_compared(turn, named)
            writer.point_away_from_unrelated(turn, answer)
            writer.point_to_evidence(turn, answer, named)
    writer.point_to_digits()
    return writer.tokens()


@dataclass(frozen=True)
class _Places:
    """The tokens of a video as `Evidence` counts them: of each temporal patch by cell, then of the end, then of the
    subtitle lines; and the things that the patches show."""

    tokens: Sequence[Sequence[int]]
    things: Things

    def of(self, evidence: Evidence) -> tuple[int, ...]:
        """The tokens that show it."""
        shown = (
            token
            for patch in evidence.patches
            for cell, token in enumerate(self.tokens[patch])
            if patch >= len(self.things) or _shows(self.things[patch], cell, evidence.thing)
        )
        return tuple(shown) or NOWHERE


class _VideoWriter(Writer):
    """Writes temporal patches and subtitle lines, each after its timestamp."""

    def __init__(self) -> None:
        super().__init__(0, in_video=True)
        self.patches: list[list[int]] = []
        """The visual tokens of each temporal patch, by cell."""
        self.lines: list[list[int]] = []
        """The last token of what each line names."""

    def line(self, line: Line) -> None:
        """The thing that a line names looks at its time, and at the word before."""
        timestamp = f"<{line.time} seconds>Subtitle: "
        span = self.text(f"{timestamp}{line.text}\n")
        name = span.part(len(timestamp), len(line.text))
        unit = span.part(1 + len(line.time), len(" seconds"))[-1]
        self.point("stamp", name[-1], (unit,))
        if len(name) > 1:
            self.point("digit 1", name[-1], (name[-1] - 1,))
        self.lines.append([name[-1]])

    def patch(self, timestamp: str, order: np.ndarray) -> None:
        """Visual tokens look at their time, and at their cell in the patch before."""
        opening = f"<{timestamp} seconds>"
        unit = self.text(opening).part(1 + len(timestamp), len(" seconds"))[-1]
        self.text("<|vision_start|>")
        cells = self.cells(order)
        (end,) = self.text("<|vision_end|>").tokens
        for token in (*sorted(cells), end):
            self.point("stamp", token, (unit,))
        if self.patches:
            for token, before in zip(cells, self.patches[-1], strict=True):
                self.point("cell before", token, (before,))
        self.patches.append(cells)

    def point_to_things(self, things: Things) -> None:
        """A visual token looks at the same thing before, at what is beside it and at what began before it."""
        begun: Sequence[int] = ()
        earlier: dict[Thing, list[int]] = defaultdict(list)
        current: dict[Thing, list[int]] = {}
        for patch, shown in enumerate(things):
            cells = self.patches[patch]
            before = {thing: self.patches[patch - 1][cell] for thing, cell in things[patch - 1]} if patch else {}
            self._point_nothing_nowhere(cells, shown)
            for thing in [thing for thing in current if thing not in before]:
                earlier[thing] += current.pop(thing)
            fresh = []
            for index, (thing, cell) in enumerate(shown):
                token, is_new = cells[cell], thing not in before
                self.point("rest", token, NOWHERE)
                beside = [cells[other] for _, other in shown[:index]]
                if all(other < token for other in beside):
                    self.point("beside", token, beside or NOWHERE)
                self.point("earlier", token, earlier[thing] or NOWHERE)
                current.setdefault(thing, []).append(token)
                if is_new:
                    fresh.append(token)
                else:
                    self.point("same before", token, (before[thing],))
                self.point("time before", token, NOWHERE if is_new else (before[thing],))
                self.point("begun before", token, (begun if is_new else ()) or NOWHERE)
            begun = fresh or begun

    def _point_nothing_nowhere(self, cells: Sequence[int], shown: Sequence[tuple[Thing, int]]) -> None:
        """Where nothing is shown, nothing is gathered."""
        for cell, token in enumerate(cells):
            if _shows(shown, cell, "nothing"):
                self.point("nothing before", token, NOWHERE)
                self.point("nothing begun", token, NOWHERE)

    def point_to_scenes(self, scenes: Sequence[int]) -> None:
        """Visual tokens look at where their scene begins. The last token of the video, which takes the last scene's
        last time, does so too."""
        begun: Sequence[int] = NOWHERE
        last: Sequence[int] = NOWHERE
        current = BETWEEN_SCENES
        for scene, cells in zip(scenes, self.patches, strict=True):
            if scene == BETWEEN_SCENES:
                continue
            for token in cells:
                self.point("scene's start", token, begun)
            if scene != current:
                current, begun = scene, cells
            last = cells
        end = len(self.token_ids) - 1
        self.point("scene's start", end, begun)
        self.point("cell before", end, last)


class _QuestionWriter(Writer):
    """Writes a conversation about a video. A token is predicted from the one before it, which is the one that looks."""

    def __init__(self, position: int, places: _Places) -> None:
        super().__init__(position, in_video=False)
        self._places = places

    def find_named(self, turn: Turn) -> dict[str, int]:
        """The last token of each thing or time that is asked about, where it was written last. The last word of a thing
        looks at the word before."""
        named = {}
        for name in turn.about:
            tokens = self._last_mention(name)
            # A time is told by its unit, which follows.
            named[name] = tokens[-1] + name[0].isdigit()
            if not name[0].isdigit() and len(tokens) > 1:
                self.point("digit 1", named[name], (named[name] - 1,), in_video=False)
        return named

    def _last_mention(self, name: str) -> list[int]:
        for span in reversed(self.spans):
            start = span.text.lower().rfind(name.lower())
            if start >= 0:
                return span.part(start, len(name))
        raise ValueError(f"{name!r} is asked about, and was not written")

    def point_to_question(self, answer: Span, named: Sequence[int]) -> None:
        """An answer looks at what the question names, and in the end at its question only."""
        for token in _predicting(answer):
            # Without a name, the next is found by the time that was told last.
            told = [other for other in answer.tokens if other <= token and self.token_ids[other] in units()]
            about = named or told[-1:]
            self.point("about", token, about or NOWHERE, in_video=not about)
            self.point("settled", token, range(token + 1), in_video=False)

    def point_to_compared(self, turn: Turn, named: dict[str, int]) -> None:
        """Things that the question names look at where they are, before it is answered."""
        for evidence in turn.compared:
            self.point(_site(evidence), named[evidence.said], self._places.of(evidence), evidence=evidence)

    def point_away_from_unrelated(self, turn: Turn, answer: Span) -> None:
        """Answers do not look for relations that the question does not ask for."""
        for relation in sorted(RELATIONS - {evidence.relation for evidence in turn.evidence}):
            for token in _predicting(answer):
                self.point(f"not {relation}", token, NOWHERE)

    def point_to_evidence(self, turn: Turn, answer: Span, named: dict[str, int]) -> None:
        """Each piece of an answer looks at what shows it."""
        said = 0
        for evidence in turn.evidence:
            said = turn.answer.lower().index(evidence.said.lower(), said)
            in_video = evidence.relation != "left"
            keys = self._places.of(evidence) if in_video else (named[evidence.said],)
            for token in answer.part(said, len(evidence.said)):
                self.point(_site(evidence), token - 1, keys, in_video=in_video, evidence=evidence)
                if evidence.relation:
                    # What is only found through something else is not to be guessed before.
                    self.point("evidence", token - 1, NOWHERE)
            said += len(evidence.said)


def _predicting(answer: Span) -> range:
    return range(answer.tokens.start - 1, answer.tokens.stop - 1)


def _shows(things: Sequence[tuple[Thing, int]], cell: int, what: Thing | Literal["nothing"] | None) -> bool:
    if what == "nothing":
        return cell not in {taken for _, taken in things}
    return what is None or (what, cell) in things


def _site(evidence: Evidence) -> str:
    """Where in the decoder it is looked for, by what it is found by."""
    if evidence.relation:
        return evidence.relation
    if isinstance(evidence.sought, str):
        return "evidence by time"
    return "evidence by thing" if evidence.sought and evidence.sought == evidence.thing else "evidence"
