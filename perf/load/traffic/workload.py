"""The workload: videos of several lengths made with a real encoder, and requests of the kinds that users send."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perf.load.traffic.target import CACHE
from tests.support.media import make_image, make_video

VIDEO_SECONDS = (3, 10, 30)
"""Lengths of the videos."""

QUESTIONS = ("What happens, and when?", "Describe what you see.", "When does the picture change?")


@dataclass(frozen=True)
class Request:
    """One request. `leaves`: its user goes away after the first words. `kind` groups figures."""

    kind: str
    question: str
    video: bytes | None = None
    image: bytes | None = None
    leaves: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)


def video_files() -> list[Path]:
    """H.264 files of 320×240 at 10 frames/s, one per length; made once."""
    folder = CACHE / "media"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for seconds in VIDEO_SECONDS:
        path = folder / f"{seconds}s.mp4"
        if not path.is_file():
            draft = path.with_name(f"draft-{path.name}")
            make_video(draft, width=320, height=240, frames=seconds * 10, fps=10, seed=seconds)
            draft.rename(path)
        files.append(path)
    return files


def greedy(tokens: int) -> dict[str, Any]:
    """Sampling parameters of an answer of exactly so many tokens."""
    return {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True}


def texts(tokens: int) -> Iterator[Request]:
    """Questions without pictures, each different, answered with `tokens` tokens, without end."""
    for number in itertools.count():
        yield Request("text", f"{number}: {QUESTIONS[number % len(QUESTIONS)]}", sampling=greedy(tokens))


def mixed(seed: int = 0) -> Iterator[Request]:
    """All kinds in random order, without end: short videos, pictures, text, rubbish, and users who leave."""
    rng = random.Random(seed)
    videos = [path.read_bytes() for path in video_files()[:2]]
    images = [make_image(width=64 + 32 * number, height=100, seed=number) for number in range(4)]
    while True:
        question, sampling = f"{rng.choice(QUESTIONS)} {rng.randrange(1000)}", greedy(rng.randint(4, 16))
        (kind,) = rng.choices(("video", "image", "text", "rubbish", "leaves"), weights=(4, 2, 2, 1, 1))
        match kind:
            case "video":
                yield Request(kind, question, video=rng.choice(videos), sampling=sampling)
            case "image":
                yield Request(kind, question, image=rng.choice(images), sampling=sampling)
            case "text":
                yield Request(kind, question, sampling=sampling)
            case "rubbish":
                yield Request(kind, question, video=rng.randbytes(rng.randint(1, 4096)), sampling=sampling)
            case "leaves":
                yield Request(kind, question, video=rng.choice(videos), leaves=True, sampling=greedy(500))
