"""The frames that the served product looks at, by stage 1's own code: training and serving cannot drift apart."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from build.demo_checkpoint.export import export
from build.demo_checkpoint.model import LanguageModel, ModelShape, VisionTower
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.media.video import open_video, read_thumbnails
from preprocess.plan.selection import select_video
from preprocess.request.options import VideoOptions
from preprocess.settings import Settings, load_settings


@dataclass(frozen=True)
class Sampled:
    """The frames `[patches, 2]` that the served sampler looks at, and the time of each temporal patch as the prompt
    writes it."""

    frames: np.ndarray
    timestamps: tuple[str, ...]


def look_at(file: bytes, question: str = "", *, sampler: str = "adaptive") -> Sampled:
    """`question`: times that it names get frames of their own."""
    library = Library(None, 1 << 20)
    video = open_video(Attachment("video", "video", file), library, lambda: None)
    if sampler == "adaptive":
        video = read_thumbnails(video, library, lambda: None)
    look = select_video(video, VideoOptions(sampler=sampler), _settings(), question=question)
    assert look.indices is not None
    frames = np.append(look.indices, look.indices[-1:].repeat(-len(look.indices) % 2)).reshape(-1, 2)
    return Sampled(frames, tuple(f"{seconds:.1f}" for seconds in look.medium.timestamps))


@lru_cache(maxsize=1)
def _settings() -> Settings:
    """Those of the exported checkpoint, whatever its weights."""
    shape = ModelShape(vocabulary=4096)
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder), VisionTower(shape), LanguageModel(shape))
        return load_settings(Path(folder))
