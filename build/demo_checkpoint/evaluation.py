"""Fresh videos with questions, never trained on, seen as the served product sees them, and what is taken from the
checkpoint or the videos to see what it is worth."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from build.demo_checkpoint.training.composing import draw_lines
from build.demo_checkpoint.training.pool import truth_of_patch
from build.demo_checkpoint.training.schedule import model_shape
from build.demo_checkpoint.training.served import Sampled, look_at
from build.demo_checkpoint.world import wording
from build.demo_checkpoint.world.drawing import draw_frames
from build.demo_checkpoint.world.questions import KINDS, Asker, Line, Question, Track, Turn, track_of
from build.demo_checkpoint.world.video import encode
from build.demo_checkpoint.world.wording import Language, minutes
from build.demo_checkpoint.world.world import CELL, COLUMNS, SCENE_SECONDS, Script, Thing, make_script

MARGIN_SECONDS = 0.5
"""Questions name times at which the picture stays the same for so long before and after: else two answers are right."""


@dataclass(frozen=True)
class Case:
    """A video file of a script, what the sampler sees of it, and questions about it. `subtitles`: a file of the track's
    lines, if it has any."""

    script: Script
    file: bytes
    track: Track
    questions: tuple[Question, ...]
    subtitles: bytes | None = None

    @property
    def moments(self) -> list[float]:
        """The seconds that the prompt's timestamps name."""
        return [float(timestamp) for timestamp in self.track.timestamps]


def make_case(
    seed: int | Sequence[int],
    *,
    seconds: float,
    kinds: Sequence[str] = tuple(KINDS),
    languages: Sequence[Language],
    sampler: str = "adaptive",
    scene_seconds: tuple[float, float] = SCENE_SECONDS,
    spoken: bool = False,
) -> Case:
    """A video, and a question of each of the kinds that it offers in each language, about what the sampler sees; with
    subtitles where it is `spoken`."""
    rng = np.random.default_rng(seed)
    script = make_script(rng, duration=seconds, scene_seconds=scene_seconds)
    file = encode(draw_frames(script), script.frames_per_second)
    track = track_of_script(script, look_at(file, sampler=sampler))
    if spoken:
        track = replace(track, lines=draw_lines(0.0, seconds, rng))
    questions: list[Question | None] = []
    for language in languages:
        asker = Asker(track, language, rng)
        # A question that names a time has its moment looked at closely: its truth is the world's, not the sample's.
        questions += [
            ask_what_at(script, language, rng) if kind == "what at" else asker.ask(kind)
            for kind in KINDS
            if kind in kinds
        ]
    subtitles = _web_vtt(track.lines) if spoken else None
    return Case(script, file, track, tuple(question for question in questions if question), subtitles)


def _web_vtt(lines: Sequence[Line]) -> bytes:
    def clock(seconds: float) -> str:
        return f"{minutes(seconds)}.{f'{seconds:.1f}'[-1]}00"

    cues = [f"{clock(float(line.time))} --> {clock(float(line.time) + 1)}\n{line.text}\n" for line in lines]
    return "\n".join(["WEBVTT\n", *cues]).encode()


def track_of_script(script: Script, sampled: Sampled) -> Track:
    truths = [truth_of_patch(script, *pair) for pair in sampled.frames / script.frames_per_second]
    return track_of(sampled.timestamps, np.stack([cells for cells, _ in truths]), [scene for _, scene in truths])


def ask_what_at(script: Script, language: Language, rng: np.random.Generator) -> Question | None:
    """The things at a random time at which nothing comes or goes; None if there is no such time."""
    candidates = np.arange(MARGIN_SECONDS, script.duration - MARGIN_SECONDS, 0.1)
    for time in rng.permutation(candidates):
        around = np.arange(time - MARGIN_SECONDS, time + MARGIN_SECONDS, 0.05)
        shown = {tuple(sorted(sighting.thing for sighting in script.shown(moment))) for moment in around}
        if len(shown) == 1 and len({script.scene_index(moment) for moment in around}) == 1:
            things = _in_reading_order(script, float(time))
            phrasings = wording.QUESTIONS["what at"][language]
            text = phrasings[int(rng.integers(len(phrasings)))].format(t=f"{time:.1f}")
            return Question("what at", language, (Turn(text, wording.listing(things, language)),))
    return None


def _in_reading_order(script: Script, seconds: float) -> list[Thing]:
    cells = {s.thing: int(s.y // CELL) * COLUMNS + int(s.x // CELL) for s in script.shown(seconds)}
    return sorted(cells, key=cells.__getitem__)


def starting_later(case: Case, seconds: float) -> Case:
    """The video begins `seconds` later, after silence: its timestamps, and when things appear, are that much later."""
    file = encode(draw_frames(case.script), case.script.frames_per_second, start=seconds)
    timestamps = tuple(f"{float(timestamp) + seconds:.1f}" for timestamp in case.track.timestamps)
    track = replace(case.track, timestamps=timestamps)
    languages = dict.fromkeys(question.language for question in case.questions)
    asked = [Asker(track, language, np.random.default_rng(0)).ask("when") for language in languages]
    return replace(case, file=file, track=track, questions=tuple(question for question in asked if question))


def in_reverse(case: Case) -> Case:
    """The frames in reverse order; the questions and their answers stay."""
    frames = list(draw_frames(case.script))
    return replace(case, file=encode(reversed(frames), case.script.frames_per_second))


def without_deepstack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The DeepStack mergers give zeros."""
    zeroed = ("linear_fc2.weight", "linear_fc2.bias")
    return {
        name: tensor * 0 if "deepstack_merger" in name and name.endswith(zeroed) else tensor
        for name, tensor in weights.items()
    }


def rows_and_columns_swapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """M-RoPE's rows reach the dimensions that learned columns, and the other way round."""
    shape = model_shape()
    half = shape.head_dim // 2
    order = np.arange(half)
    end = 3 * min(shape.mrope_section[1:])
    order[1:end:3], order[2:end:3] = np.arange(2, end, 3), np.arange(1, end, 3)
    order = np.concatenate([order, half + order])
    swapped = dict(weights)
    for name, tensor in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")) and "language_model" in name:
            swapped[name] = tensor.unflatten(0, (-1, shape.head_dim))[:, order].flatten(0, 1).contiguous()
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            swapped[name] = tensor[order].contiguous()
    return swapped


def changed_checkpoint(
    checkpoint: Path, destination: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    shutil.copytree(checkpoint, destination)
    path = destination / "model.safetensors"
    # A copy may be a hard link.
    weights = change({name: tensor.clone() for name, tensor in load_file(path).items()})
    path.unlink()
    save_file(weights, path, {"format": "pt"})
