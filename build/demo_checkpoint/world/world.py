"""The world that the demo checkpoint knows: scenes of coloured shapes, two-digit numbers and short words on changing
backgrounds.

A `Script` says everything about a video before a pixel is drawn, so that it is the ground truth:
`Script.shown(seconds)`. Pictures are 96×64 pixels, which the served sampler leaves as they are: six visual tokens,
the cells of two rows and three columns.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

WIDTH, HEIGHT, CELL = 96, 64, 32
ROWS, COLUMNS = HEIGHT // CELL, WIDTH // CELL
CELLS = ROWS * COLUMNS

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (30, 180, 60),
    "blue": (55, 95, 250),
    "yellow": (245, 225, 40),
    "purple": (180, 50, 215),
    "orange": (255, 135, 10),
}
SHAPES = ("circle", "square", "triangle", "star")
CAST_SECONDS = 15.0
SCENE_SECONDS = (2.0, 5.0)
WORDS = ("CAT", "DOG", "SUN", "BUS", "KEY", "MAP", "BOX", "HAT", "ICE", "JET", "OWL", "ZOO")


@dataclass(frozen=True, order=True)
class Thing:
    """Something that can be seen: a coloured shape, a number (`name` is its two digits) or a word."""

    kind: Literal["shape", "number", "word"]
    name: str
    colour: str = ""


THINGS: tuple[Thing, ...] = (
    *(Thing("shape", shape, colour) for colour in COLOURS for shape in SHAPES),
    *(Thing("number", f"{number:02d}") for number in range(100)),
    *(Thing("word", word) for word in WORDS),
)
THING_INDEX = {thing: index for index, thing in enumerate(THINGS)}


@dataclass(frozen=True)
class Appearance:
    """A thing on the screen from `start` to `end` seconds; its centre, in pixels, goes straight from `origin` to
    `target`."""

    thing: Thing
    start: float
    end: float
    origin: tuple[float, float]
    target: tuple[float, float]
    size: int

    def centre(self, seconds: float) -> tuple[float, float]:
        share = (seconds - self.start) / (self.end - self.start)
        (x0, y0), (x1, y1) = self.origin, self.target
        return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


@dataclass(frozen=True)
class Scene:
    """A stretch with one background. A fade goes through black: out over the scene's last `fade` seconds, in over its
    first."""

    start: float
    end: float
    background_seed: int
    fade: float
    appearances: tuple[Appearance, ...]

    def brightness(self, seconds: float) -> float:
        if not self.fade:
            return 1.0
        return float(np.clip(min(seconds - self.start, self.end - seconds) / self.fade, 0.0, 1.0))


@dataclass(frozen=True)
class Sighting:
    """A thing that is shown at some moment and the centre of its picture, in pixels."""

    thing: Thing
    x: float
    y: float


@dataclass(frozen=True)
class Script:
    """A whole video: scenes that follow one another without a gap, frames per second, and the noise's standard
    deviation."""

    scenes: tuple[Scene, ...]
    frames_per_second: int
    noise: float
    seed: int

    @property
    def duration(self) -> float:
        return self.scenes[-1].end

    def scene_index(self, seconds: float) -> int:
        """The scene at a time; the first or the last one outside of the video."""
        return min(bisect_right(self._ends, seconds), len(self.scenes) - 1)

    @cached_property
    def _ends(self) -> list[float]:
        return [scene.end for scene in self.scenes]

    def shown(self, seconds: float) -> tuple[Sighting, ...]:
        """The things that can be seen at a time: nothing while a fade is darker than half."""
        scene = self.scenes[self.scene_index(seconds)]
        if scene.brightness(seconds) < 0.5:
            return ()
        return tuple(
            Sighting(appearance.thing, *appearance.centre(seconds))
            for appearance in scene.appearances
            if appearance.start <= seconds < appearance.end
        )


def make_script(
    rng: np.random.Generator, *, duration: float, scene_seconds: tuple[float, float] = SCENE_SECONDS
) -> Script:
    """Draws a video of `duration` seconds whose scenes last about `scene_seconds` each (the last one takes what is
    left)."""
    scenes: list[Scene] = []
    cast: list[Thing] = []
    casts, start = 0, 0.0
    while start < duration - 1e-6:
        # A small cast for a while, so that things come back and "how often" and "after" have something to ask about.
        if start >= casts * CAST_SECONDS:
            casts += 1
            cast = [_draw_thing(rng) for _ in range(int(rng.integers(4, 7)))]
        end = start + float(rng.uniform(*scene_seconds))
        if end > duration - scene_seconds[0]:
            end = duration
        # What a scene shows is not in the next one, so that every appearance has a clear start and end.
        before = {appearance.thing for appearance in scenes[-1].appearances} if scenes else set()
        scenes.append(_make_scene(rng, start, end, cast, before))
        start = end
    return Script(
        tuple(scenes),
        frames_per_second=int(rng.choice([6, 8, 12])),
        noise=float(rng.choice([0.0, 2.0, 5.0])),
        seed=int(rng.integers(2**31)),
    )


def _draw_thing(rng: np.random.Generator) -> Thing:
    kind = rng.choice(["shape", "number", "word"], p=[0.62, 0.22, 0.16])
    if kind == "shape":
        return Thing("shape", str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS))))
    return Thing("number", f"{rng.integers(100):02d}") if kind == "number" else Thing("word", str(rng.choice(WORDS)))


def _make_scene(rng: np.random.Generator, start: float, end: float, cast: list[Thing], before: set[Thing]) -> Scene:
    wanted = int(rng.choice([0, 1, 2], p=[0.04, 0.48, 0.48]))
    things: list[Thing] = []
    for index in rng.permutation(len(cast)):
        thing = cast[index]
        # At most one number and one word at a time: "which number is shown?" has one answer.
        if (
            len(things) < wanted
            and thing not in things
            and thing not in before
            and (thing.kind == "shape" or thing.kind not in {other.kind for other in things})
        ):
            things.append(thing)
    fade = 0.4 if rng.random() < 0.25 else 0.0
    moving = len(things) > 0 and rng.random() < 0.35
    if moving:
        # Things that move keep to rows of their own, so that they never meet.
        rows = list(rng.permutation(ROWS))
        spots = [
            ((rows[i], int(rng.integers(COLUMNS))), (rows[i], int(rng.integers(COLUMNS)))) for i in range(len(things))
        ]
    else:
        cells = rng.permutation(ROWS * COLUMNS)[: len(things)]
        spots = [((int(c) // COLUMNS, int(c) % COLUMNS),) * 2 for c in cells]
    appearances = []
    for thing, (first, last) in zip(things, spots, strict=True):
        begin, finish = start, end
        if rng.random() < 0.3 and end - start > 2.5:
            cut = float(rng.uniform(start + 1.0, end - 1.0))
            begin, finish = (cut, end) if rng.random() < 0.5 else (start, cut)
        jitter = rng.uniform(-3, 3, size=2)
        appearances.append(
            Appearance(
                thing, begin, finish, _pixel(first, jitter), _pixel(last, jitter), size=int(rng.integers(20, 27))
            )
        )
    if rng.random() < 0.12 and len(things) < 2 and not moving:
        appearances.append(_make_blink(rng, start, end, {spot[0] for spot in spots}, {*cast, *before}))
    return Scene(start, end, int(rng.integers(2**31)), fade, tuple(appearances))


def _make_blink(
    rng: np.random.Generator, start: float, end: float, taken: set[tuple[int, int]], others: set[Thing]
) -> Appearance:
    """A shape, none of the `others`, that flashes for a fifth of a second: too short for the sampler to rely on, and
    never asked about."""
    free = [(row, column) for row in range(ROWS) for column in range(COLUMNS) if (row, column) not in taken]
    spot = _pixel(free[int(rng.integers(len(free)))], np.zeros(2))
    shapes = [thing for thing in THINGS if thing.kind == "shape" and thing not in others]
    begin = float(rng.uniform(start + 0.3, end - 0.6))
    return Appearance(shapes[int(rng.integers(len(shapes)))], begin, begin + 0.2, spot, spot, size=22)


def _pixel(cell: tuple[int, int], jitter: np.ndarray) -> tuple[float, float]:
    row, column = cell
    return (column + 0.5) * CELL + float(jitter[0]), (row + 0.5) * CELL + float(jitter[1])
