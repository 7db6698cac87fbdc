"""Random requests: every kind of medium, mixed and in several turns, each drawn from its own seed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.media import make_image, make_video

KINDS = ("video", "image", "text", "videos", "images", "mixed", "turns")
WORDS = ("What happens here?", "请描述这个视频。", "Read the sign, then count: 1, 2, 30.", "Où est le chat 🐈?", "Why")
CODECS = (("mp4", "libx264"), ("mkv", "libx264"), ("mov", "libx264"), ("avi", "mpeg4"), ("mp4", "mpeg4"))


@dataclass(frozen=True)
class Case:
    number: int
    description: str
    messages: Sequence[dict[str, Any]]
    """OpenAI chat format; media are referred to by index."""
    videos: Sequence[bytes]
    images: Sequence[bytes]
    video_options: dict[str, Any]


def draw(number: int, seed: int) -> Case:
    """The case with that number; the same for the same seed, whatever other cases are drawn."""
    rng = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    videos: list[bytes] = []
    images: list[bytes] = []
    described: list[str] = []

    def video_part() -> dict[str, Any]:
        content, description = _video(rng)
        videos.append(content)
        described.append(description)
        return {"type": "video", "video": len(videos) - 1}

    def image_part() -> dict[str, Any]:
        content, description = _image(rng)
        images.append(content)
        described.append(description)
        return {"type": "image", "image": len(images) - 1}

    def text_part() -> dict[str, Any]:
        return {"type": "text", "text": " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))}

    if kind == "text":
        messages = [{"role": "user", "content": text_part()["text"]}]
    elif kind == "turns":
        messages = [{"role": "system", "content": rng.choice(WORDS)}] if rng.random() < 0.5 else []
        for _ in range(rng.randint(1, 3)):
            messages.append({"role": "user", "content": [rng.choice((video_part, image_part))(), text_part()]})
            messages.append({"role": "assistant", "content": rng.choice(WORDS)})
        messages.append({"role": "user", "content": rng.choice(WORDS)})
    else:
        makers = {
            "video": [video_part],
            "image": [image_part],
            "videos": [video_part] * rng.randint(2, 3),
            "images": [image_part] * rng.randint(2, 4),
            "mixed": [video_part, image_part] * rng.randint(1, 2),
        }[kind]
        parts = [make() for make in rng.sample(makers, len(makers))]
        parts.insert(rng.randint(0, len(parts)), text_part())
        messages = [{"role": "user", "content": parts}]

    options: dict[str, Any] = {"sampler": "uniform"}
    if videos and rng.random() < 0.6:
        options["fps"] = rng.choice((0.5, 1, 1.7, 3, 4.0, 8))
    if videos and rng.random() < 0.3:
        options["max_frames"] = rng.choice((4, 6, 7, 12))
    return Case(number, f"{kind}: {', '.join(described) or 'text only'}", messages, videos, images, options)


def _size(rng: random.Random) -> tuple[int, int]:
    """Width and height, even (4:2:0), of any aspect ratio up to about 1:6."""
    short = rng.randint(16, 120)
    long = min(int(short * rng.uniform(1, 6)), 480)
    width, height = (2 * (v // 2) for v in ((long, short) if rng.random() < 0.6 else (short, long)))
    return width, height


def _video(rng: random.Random) -> tuple[bytes, str]:
    container, codec = rng.choice(CODECS)
    width, height = _size(rng)
    variable = container in ("mp4", "mkv", "mov") and rng.random() < 0.25
    options: dict[str, Any] = {
        "width": width,
        "height": height,
        "frames": rng.randint(2, 40),
        "fps": rng.choice((2, 5, 7, 10, 15, 24, 25, 30)),
        "codec": codec,
        "variable": variable,
        "audio": rng.random() < 0.2,
        "rotation": rng.choice((0, 0, 0, 90, 180, 270)) if container in ("mp4", "mov") else 0,
        "start_offset_seconds": rng.choice((0.0, 0.0, 1.5)) if container in ("mp4", "mkv", "mov") else 0.0,
        "seed": rng.randrange(2**31),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{container}"
        make_video(path, **options)
        content = path.read_bytes()
    drawn = f"{options['frames']} frames {width}x{height} {container}/{codec} at {options['fps']}/s"
    extras = [name for name in ("variable", "audio", "rotation", "start_offset_seconds") if options[name]]
    return content, " ".join([drawn, *extras])


def _image(rng: random.Random) -> tuple[bytes, str]:
    width, height = _size(rng)
    return make_image(width=width, height=height, seed=rng.randrange(2**31)), f"image {width}x{height}"
