"""`make bench-answers`: what the adaptive sampler's choice of frames is worth in right answers.

The demo checkpoint is asked the questions of `make accuracy` about fresh videos: looking at them uniformly, and
adaptively with half as many frames. The questions, and how closely a time must be told, are about what uniform sampling
sees with all of its frames. In calm videos there is something to choose; in lively ones every frame shows something
else, and half of them can only be half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.progress import track

from build.demo_checkpoint.evaluation import Case, make_case
from build.demo_checkpoint.world.world import SCENE_SECONDS
from perf.checks.accuracy import BARS, CHECKPOINT, ask_all
from perf.support import report
from perf.support.setup import command_line, served


@dataclass(frozen=True)
class World:
    """Videos of `seconds`, whose scenes last `scene_seconds`; `judged`: the bar is about them."""

    name: str
    seconds: tuple[int, int]
    scene_seconds: tuple[float, float]
    judged: bool


WORLDS = (World("calm", (24, 32), (6.0, 12.0), judged=True), World("lively", (4, 12), SCENE_SECONDS, judged=False))


def make_cases(world: World, seed: int, videos: int) -> list[Case]:
    """One video in English, the next in Chinese."""
    lengths = np.random.default_rng(seed).integers(world.seconds[0], world.seconds[1] + 1, size=videos)
    return [
        make_case(
            [seed, index],
            seconds=int(length),
            languages=("zh" if index % 2 else "en",),
            sampler="uniform",
            scene_seconds=world.scene_seconds,
        )
        for index, length in enumerate(track(lengths, f"{world.name} videos"))
    ]


def uniformly(case: Case) -> Mapping[str, Any]:
    return {"sampler": "uniform"}


def adaptively(case: Case) -> Mapping[str, Any]:
    """A temporal patch is two frames."""
    return {"sampler": "adaptive", "min_frames": 1, "max_frames": len(case.track.timestamps)}


def main() -> None:
    parser = command_line("bench-answers", __doc__)
    parser.add_argument("--videos", type=int, default=50, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    figures: list[report.Figure] = []
    with served(CHECKPOINT) as (_, client):
        for world in WORLDS:
            cases = make_cases(world, arguments.seed, arguments.videos)
            right = [ask_all(client, cases, tuple(BARS), options) for options in (uniformly, adaptively)]
            shares = [100 * float(np.mean([one for answers in each.values() for one in answers])) for each in right]
            asked = sum(map(len, right[0].values()))
            rows.append((world.name, "{}-{} s".format(*world.seconds), asked, *shares))
            if world.judged:
                name = f"{world.name} videos: adaptive, half the frames, above uniform"
                figures.append(report.Figure(name, shares[1] - shares[0], "points", at_least=0))
    report.finish(
        "bench-answers",
        workload={**vars(arguments), "checkpoint": "build/demo_checkpoint/checkpoint"},
        columns=("videos", "length", "questions", "uniform, right %", "adaptive at half, right %"),
        rows=rows,
        figures=figures,
    )


if __name__ == "__main__":
    main()
