"""A pool of real, encoded and decoded videos for training, cached on disk in shards that any number of processes can
make.

Only what the sampler would look at is kept: `PATCHES` temporal patches a video, each of two frames.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from build.demo_checkpoint.training.served import look_at
from build.demo_checkpoint.world.drawing import draw_frames
from build.demo_checkpoint.world.video import decode, encode
from build.demo_checkpoint.world.world import CELL, COLUMNS, ROWS, THING_INDEX, Script, make_script

PATCHES = 12
VIDEOS_PER_SHARD = 50
NOTHING = -1
BETWEEN_SCENES = -1


@dataclass(frozen=True)
class Views:
    """Temporal patches: their pictures and the truth about them."""

    frames: np.ndarray
    """uint8 `[videos, patches, 2, 64, 96, 3]`"""
    cells: np.ndarray
    """int16 `[videos, patches, 6]`: the index in `THINGS` of what has its centre in each cell, or `NOTHING`"""
    scenes: np.ndarray
    """int16 `[videos, patches]`: the index of the scene, or `BETWEEN_SCENES` for a patch with a cut inside"""
    seconds: np.ndarray
    """float32 `[videos, patches]`: the time of each temporal patch"""


def truth_of_patch(script: Script, first: float, second: float) -> tuple[np.ndarray, int]:
    """The `cells` (int16 `[6]`) and the scene of the temporal patch of the frames at two times, in seconds.

    A thing counts where it is shown in both frames; one that moves is in the cell of its mean position. A patch with
    a cut inside shows nothing.
    """
    cells = np.full(ROWS * COLUMNS, NOTHING, np.int16)
    scene = script.scene_index(first)
    if scene != script.scene_index(second):
        return cells, BETWEEN_SCENES
    later = {sighting.thing: sighting for sighting in script.shown(second)}
    for sighting in script.shown(first):
        if sighting.thing in later:
            other = later[sighting.thing]
            row, column = int((sighting.y + other.y) / 2 // CELL), int((sighting.x + other.x) / 2 // CELL)
            cells[row * COLUMNS + column] = THING_INDEX[sighting.thing]
    return cells, scene


def make_views(seed: int) -> Views:
    """One video drawn from a seed, encoded, decoded and sampled as it is served: mostly adaptively, at times with
    frames around a moment that a question names."""
    rng = np.random.default_rng(seed)
    duration = PATCHES + float(rng.uniform(0.05, 0.45))
    script = make_script(rng, duration=duration)
    file = encode(draw_frames(script), script.frames_per_second, quality=int(rng.integers(18, 29)))
    sampler = str(rng.choice(["adaptive", "uniform"], p=[0.8, 0.2]))
    question = f"At {rng.uniform(0, duration):.1f} seconds" if rng.random() < 0.5 else ""
    sampled = look_at(file, question, sampler=sampler)
    frames = sampled.frames[:PATCHES]
    # The truth is about the frames that are looked at.
    truths = [truth_of_patch(script, *pair) for pair in frames / script.frames_per_second]
    return Views(
        decode(file)[frames][None],
        np.stack([cells for cells, _ in truths])[None],
        np.array([scene for _, scene in truths], np.int16)[None],
        np.array([float(timestamp) for timestamp in sampled.timestamps[:PATCHES]], np.float32)[None],
    )


def load_pool(folder: Path, *, videos: int, seed: int, workers: int) -> Views:
    """The first `videos` videos of the pool of a seed; shards that are missing are made by `workers` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [(folder / f"{seed}-{shard:04d}.npz", seed, shard) for shard in range(-(-videos // VIDEOS_PER_SHARD))]
    missing = [shard for shard in shards if not shard[0].exists()]
    if missing:
        with ProcessPoolExecutor(workers) as executor:
            for done, _ in enumerate(executor.map(_make_shard, missing), 1):
                print(f"pool: {done} of {len(missing)} shards made", flush=True)
    parts = [np.load(path) for path, _, _ in shards]
    return Views(*(np.concatenate([part[field.name] for part in parts])[:videos] for field in fields(Views)))


def _make_shard(shard: tuple[Path, int, int]) -> None:
    path, seed, index = shard
    seeds = np.random.SeedSequence([seed, index]).generate_state(VIDEOS_PER_SHARD)
    parts = [make_views(int(video_seed)) for video_seed in seeds]
    temporary = path.with_suffix(".partial.npz")
    np.savez(temporary, **{n.name: np.concatenate([getattr(p, n.name) for p in parts]) for n in fields(Views)})
    temporary.replace(path)
