"""The pictures of the bench clips: shots of drawn places and slides, and events at known times in them.

A shot is a window that rests on, or moves over, a drawn place larger than the picture, under fresh sensor noise. Things
appear in it and leave, something blinks, light changes slowly. Everything is drawn from seeds, in YUV 4:2:0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

EventKind = Literal["cut", "appearance", "blink", "slow change"]
BLINK_SECONDS = 0.2


@dataclass(frozen=True)
class Event:
    """Something that happens at known times, in seconds of the clip.

    A cut has `start == end`, the time of the first frame after it. An appearance and a blink are visible in
    `[start, end)`. A slow change runs over `[start, end]`: the picture is one thing before and another after.
    """

    kind: EventKind
    start: float
    end: float


@dataclass(frozen=True)
class Shot:
    """`motion`: how the camera moves. `noise`: standard deviation of the sensor noise in 8-bit steps.

    The events' times count from the start of the shot.
    """

    seconds: float
    motion: Literal["static", "pan", "handheld", "slide"]
    noise: float
    seed: int
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Film:
    """Shots one after the other; each begins with a cut."""

    shots: tuple[Shot, ...]
    width: int
    height: int
    fps: int

    @property
    def seconds(self) -> float:
        return sum(shot.seconds for shot in self.shots)

    def events(self) -> list[Event]:
        """All events in seconds of the film, cuts included, by their start."""
        found: list[Event] = []
        start = 0.0
        for shot in self.shots:
            if start > 0:
                found.append(Event("cut", start, start))
            found += [Event(event.kind, start + event.start, start + event.end) for event in shot.events]
            start += shot.seconds
        return sorted(found, key=lambda event: event.start)

    def frames(self) -> Iterator[np.ndarray]:
        """Pictures in order: uint8 `[height * 3 / 2, width]`, planar YUV 4:2:0."""
        for shot in self.shots:
            yield from _draw(shot, self.width, self.height, self.fps)


def everyday_film(*, seconds: float, width: int, height: int, fps: int, seed: int) -> Film:
    """A mix of long still scenes with things happening in them, pans, hand-held shots, fast cuts and slides."""
    rng = np.random.default_rng(seed)
    shots: list[Shot] = []
    while (left := seconds - sum(shot.seconds for shot in shots)) > 1:
        for shot in _sequence(rng, fps):
            if shot.seconds > left:
                break
            shots.append(shot)
            left -= shot.seconds
        else:
            continue
        shots.append(Shot(round(left * fps) / fps, "static", 1.0, int(rng.integers(2**31))))
        break
    return Film(tuple(shots), width, height, fps)


def _sequence(rng: np.random.Generator, fps: int) -> list[Shot]:
    """One stretch of film in one manner."""

    def shot(seconds: float, motion: Literal["static", "pan", "handheld", "slide"], noise: float) -> Shot:
        seconds = round(seconds * fps) / fps
        events = tuple(_events(rng, seconds, fps)) if motion in ("static", "handheld") and seconds >= 15 else ()
        return Shot(seconds, motion, noise, int(rng.integers(2**31)), events)

    manner = rng.choice(["still", "slides", "action", "handheld", "pan"], p=[0.45, 0.15, 0.15, 0.15, 0.1])
    noise = float(rng.choice([0.5, 1.5, 3.0]))
    if manner == "still":
        return [shot(rng.uniform(30, 90), "static", noise)]
    if manner == "slides":
        return [shot(rng.uniform(6, 20), "slide", 0.0) for _ in range(rng.integers(2, 6))]
    if manner == "action":
        return [shot(rng.uniform(0.8, 4), rng.choice(["static", "pan", "handheld"]), noise) for _ in range(8)]
    if manner == "handheld":
        return [shot(rng.uniform(15, 40), "handheld", noise)]
    return [shot(rng.uniform(5, 15), "pan", noise)]


def _events(rng: np.random.Generator, seconds: float, fps: int) -> Iterator[Event]:
    """The events of a long shot: never two things within 3 s, so that each is found or missed by itself."""
    time = rng.uniform(3, 6)
    while time < seconds - 8:
        kind: EventKind = rng.choice(["appearance", "blink", "slow change"], p=[0.4, 0.4, 0.2])
        lasts = {"appearance": rng.uniform(0.6, 4), "blink": BLINK_SECONDS, "slow change": rng.uniform(4, 7)}[kind]
        start = round(time * fps) / fps
        end = round((time + lasts) * fps) / fps
        yield Event(kind, start, end)
        time = end + rng.uniform(3, 9)


def _draw(shot: Shot, width: int, height: int, fps: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(shot.seed)
    margin = 0 if shot.motion == "slide" else height // 4
    place = _slide(rng, width, height) if shot.motion == "slide" else _place(rng, width + margin, height + margin)
    grain = rng.normal(0, shot.noise, size=(height * 5 // 4, width * 5 // 4)).round().astype(np.int16)
    things = [_thing(rng, width, height) for _ in shot.events]
    drift = rng.uniform(-1, 1, size=2)
    for index in range(round(shot.seconds * fps)):
        seconds = index / fps
        left, top = _camera(shot.motion, seconds, index, shot.seconds, margin, drift, rng)
        luma = place[0][top : top + height, left : left + width].astype(np.int16)
        chroma = [
            plane[top // 2 : (top + height) // 2, left // 2 : left // 2 + width // 2].copy() for plane in place[1:]
        ]
        for event, (row, column, thing) in zip(shot.events, things, strict=True):
            rows, columns = thing.shape
            where = np.s_[row : row + rows, column : column + columns]
            if event.kind == "slow change":
                luma[where] += np.int16(70 * np.clip((seconds - event.start) / (event.end - event.start), 0, 1))
            elif event.start - 1e-6 <= seconds < event.end - 1e-6:
                luma[where] = thing
                chroma[0][row // 2 : (row + rows) // 2, column // 2 : (column + columns) // 2] = 90
        if shot.noise:
            down, right = rng.integers(height // 4), rng.integers(width // 4)
            luma += grain[down : down + height, right : right + width]
        picture = np.empty((height * 3 // 2, width), np.uint8)
        picture[:height] = luma.clip(16, 235)
        for plane, rows_ in zip(chroma, (np.s_[height : height * 5 // 4], np.s_[height * 5 // 4 :]), strict=True):
            picture[rows_] = plane.reshape(-1, width)
        yield picture


def _camera(
    motion: str, seconds: float, index: int, total: float, margin: int, drift: np.ndarray, rng: np.random.Generator
) -> tuple[int, int]:
    """The window's left and top, even numbers in [0, margin]."""
    if motion == "pan":
        across = seconds / total if drift[0] > 0 else 1 - seconds / total
        return int(across * margin) // 2 * 2, margin // 4 * 2
    if motion == "handheld":
        sway = np.sin(seconds * (1.3 + drift)) * margin / 10 + rng.normal(0, 0.5, 2)
        return tuple(int(np.clip(margin / 2 + value, 0, margin)) // 2 * 2 for value in sway)  # type: ignore[return-value]
    return margin // 4 * 2, margin // 4 * 2


def _place(rng: np.random.Generator, width: int, height: int) -> Sequence[np.ndarray]:
    """Clouds of every scale, with sharp things in front of them."""
    luma = np.zeros((height, width))
    for cells, strength in ((4, 60), (16, 30), (64, 14), (160, 8)):
        coarse = Image.fromarray(rng.normal(0, strength, size=(cells * height // width + 1, cells)).astype(np.float32))
        luma += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    canvas = Image.fromarray((luma + 120).clip(16, 235).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for _ in range(40):
        x, y = rng.integers(width), rng.integers(height)
        w, h = rng.integers(width // 60, width // 6, size=2)
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((x, y, x + int(w), y + int(h)), fill=int(rng.integers(16, 235)))
    chroma = [
        np.asarray(
            Image.fromarray(rng.normal(128, 25, size=(5, 8)).clip(60, 200).astype(np.float32)).resize(
                (width // 2, height // 2), Image.Resampling.BICUBIC
            )
        ).astype(np.uint8)
        for _ in range(2)
    ]
    return [np.asarray(canvas), *chroma]


def _slide(rng: np.random.Generator, width: int, height: int) -> Sequence[np.ndarray]:
    """A page: a heading and lines of dark marks on white."""
    canvas = Image.new("L", (width, height), 230)
    pen = ImageDraw.Draw(canvas)
    line = height // 18
    for row in range(2, 16):
        if row > 3 and rng.random() < 0.25:
            continue
        x = width // 12
        stop = x + int(width * rng.uniform(0.3, 0.8))
        while x < stop:
            letter = int(rng.integers(max(line // 8, 2), max(line // 2, 4)))
            pen.rectangle(
                (x, row * line + int(rng.integers(line // 3)), x + letter, row * line + line * 2 // 3), fill=30
            )
            x += letter + max(line // 6, 2)
    return [np.asarray(canvas), *(np.full((height // 2, width // 2), 128, np.uint8) for _ in range(2))]


def _thing(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, np.ndarray]:
    """Row, column and picture of something that is not of the place: 2 % to 20 % of the picture."""
    area = rng.uniform(0.02, 0.2)
    rows, columns = (int(size * area**0.5) // 2 * 2 for size in (height, width))
    row, column = (int(rng.integers((size - part) // 2)) * 2 for size, part in ((height, rows), (width, columns)))
    coarse = rng.integers(16, 235, size=(max(rows // 24, 2), max(columns // 24, 2))).astype(np.uint8)
    return row, column, np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.NEAREST), np.int16)
