"""Fresh videos with questions, never trained on, and what the checkpoint is without some of its parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from demo_checkpoint.model import LanguageModel, VisionTower, patchify
from demo_checkpoint.pool import truth_of_patch
from demo_checkpoint.prompts import Batch, collate, write_example
from demo_checkpoint.questions import KINDS, Asker, Question, Track, track_of
from demo_checkpoint.telling import exact_answers
from demo_checkpoint.training import model_shape
from demo_checkpoint.video import decode, encode
from demo_checkpoint.world import HEIGHT, WIDTH, Script, draw_frames, make_script

FRAMES_PER_SECOND = 2
"""What the sampler looks at by default; a temporal patch is two frames."""


@dataclass(frozen=True)
class Case:
    """A video file of a script, what the sampler sees of it, and questions about it."""

    script: Script
    file: bytes
    track: Track
    questions: tuple[Question, ...]

    @property
    def patch_seconds(self) -> float:
        """From one timestamp of the prompt to the next: nothing can be timed more closely."""
        return self.script.duration / len(self.track.timestamps)


def make_case(seed: int | Sequence[int], *, seconds: int, questions_per_kind: int = 1) -> Case:
    """A video of a whole number of seconds, and questions of every kind that it offers, in both languages."""
    rng = np.random.default_rng(seed)
    script = make_script(rng, duration=float(seconds))
    track = track_of_script(script)
    askers = [Asker(track, language, rng) for language in ("en", "zh")]
    asked = (asker.ask(kind) for asker in askers for kind in KINDS for _ in range(questions_per_kind))
    file = encode(draw_frames(script), script.frames_per_second)
    return Case(script, file, track, tuple(dict.fromkeys(question for question in asked if question)))


def sampled_frames(script: Script) -> np.ndarray:
    """The indices of the frames that the served sampler looks at, `[patches, 2]`: evenly spread from the first to the
    last."""
    total = round(script.duration * script.frames_per_second)
    wanted = round(script.duration) * FRAMES_PER_SECOND
    return np.linspace(0, total - 1, wanted).round().astype(int).reshape(-1, 2)


def track_of_script(script: Script) -> Track:
    times = sampled_frames(script) / script.frames_per_second
    truths = [truth_of_patch(script, *pair) for pair in times]
    timestamps = [f"{mean:.1f}" for mean in times.mean(axis=1)]
    return track_of(timestamps, np.stack([cells for cells, _ in truths]), [scene for _, scene in truths])


def load_checkpoint(folder: Path) -> tuple[VisionTower, LanguageModel]:
    """The exported checkpoint, in float32, as the training has it."""
    weights = load_file(folder / "model.safetensors")
    tower, model = VisionTower(model_shape()), LanguageModel(model_shape())
    visual, text = "model.visual.", "model.language_model."
    towers = {name.removeprefix(visual): tensor.float() for name, tensor in weights.items() if name.startswith(visual)}
    towers["patch_embed.proj.weight"] = towers["patch_embed.proj.weight"].flatten(1)
    tower.load_state_dict(towers)
    model.load_state_dict(
        {name.removeprefix(text): tensor.float() for name, tensor in weights.items() if not name.startswith(visual)}
    )
    return tower.eval(), model.eval()


def _whole(batch: Batch, rows: Tensor) -> tuple[Batch, Tensor]:
    return batch, rows


def _without_deepstack(batch: Batch, rows: Tensor) -> tuple[Batch, Tensor]:
    hidden = model_shape().hidden
    return batch, torch.cat([rows[:, :hidden], torch.zeros_like(rows[:, hidden:])], dim=1)


def _rows_and_columns_swapped(batch: Batch, rows: Tensor) -> tuple[Batch, Tensor]:
    return replace(batch, positions=batch.positions[[0, 2, 1]]), rows


# What is taken away, and the kinds of questions that depend on it.
ABLATIONS: dict[str, tuple[Callable[[Batch, Tensor], tuple[Batch, Tensor]], tuple[str, ...]]] = {
    "DeepStack zeroed": (_without_deepstack, ("what at", "which number")),
    "M-RoPE rows and columns swapped": (_rows_and_columns_swapped, ("where", "left")),
    "frames in reverse order": (_whole, ("when", "what at", "after", "before")),
}


@torch.inference_mode()
def exact_shares(
    tower: VisionTower, model: LanguageModel, cases: Iterable[Case], *, ablation: str | None = None, shift: float = 0.0
) -> dict[str, float]:
    """The share of questions of each kind that are answered word for word, without a server.

    `shift`: seconds added to every timestamp of the prompt; the answers of "when" are then expected that much later.
    """
    change = ABLATIONS[ablation][0] if ablation else _whole
    right: dict[str, list[bool]] = defaultdict(list)
    for case in cases:
        frames = decode(case.file)[sampled_frames(case.script).flatten()]
        if ablation == "frames in reverse order":
            frames = frames[::-1].copy()
        rows = tower(patchify(torch.from_numpy(frames).view(-1, 2, HEIGHT, WIDTH, 3))).flatten(0, 1)
        questions = case.questions
        timestamps = case.track.timestamps
        if shift:
            timestamps = tuple(f"{float(timestamp) + shift:.1f}" for timestamp in timestamps)
            shifted = Asker(replace(case.track, timestamps=timestamps), "en", np.random.default_rng(0)).ask("when")
            questions = (shifted,) if shifted else ()
        batch, rows = change(collate([write_example(timestamps, questions)]), rows)
        for question, whole in exact_answers(model, batch, rows, [list(questions)]) if questions else ():
            right[question.kind].append(whole)
    return {kind: float(np.mean(answers)) for kind, answers in right.items()}
