"""Draws the frames of a script: how things and backgrounds look."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from build.demo_checkpoint.world.world import COLOURS, HEIGHT, WIDTH, Script, Thing

SUPERSAMPLING = 4


def draw_frames(script: Script) -> Iterator[np.ndarray]:
    """The video's frames in order, uint8 `[64, 96, 3]`; frame `i` shows the time `i / frames_per_second`."""
    rng = np.random.default_rng(script.seed)
    noise = rng.normal(0.0, max(script.noise, 1e-6), size=(8, HEIGHT, WIDTH, 1)).astype(np.float32)
    background = lru_cache(maxsize=2)(draw_background)
    for index in range(round(script.duration * script.frames_per_second)):
        seconds = index / script.frames_per_second
        scene = script.scenes[script.scene_index(seconds)]
        picture = background(scene.background_seed).copy()
        for appearance in scene.appearances:
            if appearance.start <= seconds < appearance.end:
                paste(picture, appearance.thing, *appearance.centre(seconds), appearance.size)
        picture *= scene.brightness(seconds)
        if script.noise:
            picture += noise[int(rng.integers(len(noise)))]
        yield np.clip(picture, 0, 255).astype(np.uint8)


def draw_background(seed: int) -> np.ndarray:
    """A dim gradient between two random colours in a random direction, some with stripes: float32 `[64, 96, 3]`."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    along = (columns / WIDTH - 0.5) * np.cos(angle) + (rows / HEIGHT - 0.5) * np.sin(angle) + 0.5
    first, second = rng.uniform(5, 95, size=(2, 3))
    picture = first + np.clip(along, 0, 1)[..., None] * (second - first)
    if rng.random() < 0.3:
        picture = picture + 10 * np.sin(along * rng.uniform(20, 50))[..., None]
    return np.clip(picture, 0, 120).astype(np.float32)


def paste(picture: np.ndarray, thing: Thing, x: float, y: float, size: int) -> None:
    """Draws a thing into a float32 picture `[height, width, 3]`, centred at x, y; what lies outside is cut off."""
    sprite, alpha = _sprite(thing, size)
    height, width = alpha.shape[:2]
    top, left = round(y - height / 2), round(x - width / 2)
    rows = slice(max(top, 0), min(top + height, picture.shape[0]))
    columns = slice(max(left, 0), min(left + width, picture.shape[1]))
    part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    region = picture[rows, columns]
    region += alpha[part] * (sprite[part] - region)


@lru_cache(maxsize=2048)
def _sprite(thing: Thing, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours `[height, width, 3]` and opacity `[height, width, 1]`, float32."""
    if thing.kind == "shape":
        return _shape_sprite(thing, size)
    points = size - 1 if thing.kind == "number" else size // 2 + 3
    font = ImageFont.load_default(points)
    box = font.getbbox(thing.name, stroke_width=1)
    canvas = Image.new("RGBA", (math.ceil(box[2] - box[0]), math.ceil(box[3] - box[1])), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text(
        (-box[0], -box[1]), thing.name, font=font, fill="white", stroke_width=1, stroke_fill=(255, 255, 255, 160)
    )
    return _split(canvas)


def _shape_sprite(thing: Thing, size: int) -> tuple[np.ndarray, np.ndarray]:
    edge = size * SUPERSAMPLING
    canvas = Image.new("RGBA", (edge, edge), (*COLOURS[thing.colour], 0))
    pen = ImageDraw.Draw(canvas)
    fill = (*COLOURS[thing.colour], 255)
    centre = edge / 2
    if thing.name == "circle":
        pen.ellipse((0, 0, edge - 1, edge - 1), fill=fill)
    elif thing.name == "square":
        inset = edge * 0.07
        pen.rectangle((inset, inset, edge - inset, edge - inset), fill=fill)
    elif thing.name == "triangle":
        pen.polygon([(centre, 0), (edge - 1, edge - 1), (0, edge - 1)], fill=fill)
    else:
        radii = (centre, centre * 0.42)
        turns = [math.pi * corner / 5 for corner in range(10)]
        pen.polygon(
            [
                (centre + radii[i % 2] * math.sin(turn), centre - radii[i % 2] * math.cos(turn))
                for i, turn in enumerate(turns)
            ],
            fill=fill,
        )
    return _split(canvas.resize((size, size), Image.Resampling.BOX))


def _split(canvas: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(canvas, np.float32)
    return values[..., :3], values[..., 3:] / 255
