"""How much is trained, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from build.demo_checkpoint.model import ModelShape
from build.demo_checkpoint.vocabulary import tokenizer


@dataclass(frozen=True)
class Schedule:
    """How much is trained, and where: the same schedule, seed and device type give the same checkpoint, but for
    interruptions. `start_from`: an exported checkpoint, whose tower is kept as it is and whose decoder learns on from
    the last stage of the curriculum."""

    folder: Path
    device: torch.device
    seed: int = 1
    pool_videos: int = 8000
    workers: int = 2
    vision_steps: int = 4000
    vision_batch: int = 128
    decoder_steps: int = 20_000
    decoder_videos: int = 8
    questions: int = 12
    start_from: Path | None = None


def model_shape() -> ModelShape:
    return ModelShape(vocabulary=-(-tokenizer().get_vocab_size() // 64) * 64)
