"""How fast stage 1 reads long videos, beside the readers that others use, on the same files with as many frames.

    python -m perf.bench_ingest [--long SECONDS] [--compared SECONDS] [--ssim SECONDS]

`--long` is the film that the bars on speed are about; `--compared` the length of the film, the HEVC and the phone's
file that the peers read too, at the same density of frames; `--ssim` that of the film for the SSIM loop, which is
compared by its speed. Memory is the peak of a whole process. "cheapest" is the processor time of decoding the frames
used, from the key frame before each and nothing else, as a share of ours. The files that bars are about are read
`ROUNDS` times, by all readers in turns, and the middle one of each counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from build.assemble.checkpoint_factory import make_checkpoint
from perf import clips
from perf.peers import PeerError, PeerResult, run_peer
from perf.report import Figure, finish

Run = TypeVar("Run")

BACKENDS = ("torchcodec", "decord", "torchvision")
SECONDS_PER_FRAME = 7200 / 768
"""The reference's most frames, over two hours."""
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", type=float, default=7200, help="seconds of the long film (default 7200)")
    parser.add_argument(
        "--compared", type=float, default=600, help="seconds of the files that peers read (default 600)"
    )
    parser.add_argument("--ssim", type=float, default=15, help="seconds of the film for the SSIM loop (default 15)")
    arguments = parser.parse_args()

    rows: list[list[Any]] = []
    figures: list[Figure] = []
    failures: dict[str, str] = {}

    film = _warm(clips.long_clip(arguments.long))
    runs = [_ingest("adaptive", film.path, _frames(arguments.long)) for _ in range(ROUNDS)]
    ours = _middle(runs, lambda run: run["seconds"])
    rows.append(_our_row("film, long", "adaptive", ours))
    speed = ours["video_seconds"] / ours["seconds"]
    figures += [
        Figure("long film: planned in", ours["plan_seconds"], "s", at_most=15),
        Figure("long film: first chunk after", ours["first_seconds"], "s", at_most=3),
        Figure("long film: speed", speed, "x real time", at_least=120),
        Figure("long film: peak memory", ours["peak_mb"], "MB", at_most=600),
        Figure("long film: follow-up", 100 * ours["follow_up_seconds"] / ours["seconds"], "% of the first", at_most=2),
    ]

    frames = _frames(arguments.compared)
    for name, clip, rounds in (
        ("film", clips.long_clip(arguments.compared), ROUNDS),
        ("hevc", clips.hevc_clip(arguments.compared), 1),
        ("phone", clips.phone_clip(arguments.compared), 1),
    ):
        _warm(clip)
        same: dict[str, list[dict[str, Any]]] = defaultdict(list)
        peers: dict[str, list[PeerResult]] = defaultdict(list)
        for _ in range(rounds):
            for sampler in ("adaptive", "uniform"):
                same[sampler].append(_ingest(sampler, clip.path, frames))
            for backend in BACKENDS:
                _tell(f"{clip.path.name}: {backend}")
                try:
                    peers[backend].append(run_peer(backend, clip.path, frames))
                except PeerError as error:
                    failures[f"{name}, {backend}"] = str(error)
        ours_here = {sampler: _middle(runs, lambda run: run["seconds"]) for sampler, runs in same.items()}
        theirs = {backend: _middle(runs, lambda run: run.seconds) for backend, runs in peers.items() if runs}
        rows += [_our_row(name, sampler, result) for sampler, result in ours_here.items()]
        rows += [_peer_row(name, backend, result, arguments.compared) for backend, result in theirs.items()]
        if name == "film" and theirs:
            ratio = min(result.seconds for result in theirs.values()) / ours_here["adaptive"]["seconds"]
            figures.append(Figure("film: faster than the best backend", ratio, "x", at_least=10))

    short = clips.long_clip(arguments.ssim).path
    _tell(f"{short.name}: SSIM loop")
    try:
        ssim = run_peer("ssim", short, _frames(arguments.ssim))
    except PeerError as error:
        failures["film, short, ssim"] = str(error)
    else:
        rows.append(_peer_row("film, short", "ssim", ssim, arguments.ssim))
        ratio = speed / (arguments.ssim / ssim.seconds)
        figures.append(Figure("long film: faster than the SSIM loop", ratio, "x", at_least=30))

    for reader, failure in failures.items():
        print(f"{reader}: {failure}")
    finish(
        "bench-ingest",
        workload={
            **vars(arguments),
            "seconds_per_frame": SECONDS_PER_FRAME,
            "rounds": ROUNDS,
            "picture": "1920x1080",
            "failures": failures,
        },
        columns=[
            "file",
            "reader",
            "total s",
            "first s",
            "plan s",
            "x real time",
            "MB",
            "frames",
            "decoded per used",
            "cheapest %",
        ],
        rows=rows,
        figures=figures,
    )


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _frames(seconds: float) -> int:
    return max(round(seconds / SECONDS_PER_FRAME), 2)


def _middle(runs: Sequence[Run], seconds: Callable[[Run], float]) -> Run:
    return sorted(runs, key=seconds)[len(runs) // 2]


def _warm(clip: clips.Clip) -> clips.Clip:
    """Reads the file into the system's memory, so that no reader waits for a disk that another has waited for."""
    with clip.path.open("rb") as file:
        while file.read(1 << 24):
            pass
    return clip


def _ingest(sampler: str, video: Path, frames: int) -> dict[str, Any]:
    _tell(f"{video.name}: ours, {sampler}")
    with tempfile.TemporaryDirectory() as folder:
        # Made here: what that takes of memory is none of stage 1's.
        checkpoint = Path(folder) / "checkpoint"
        make_checkpoint(checkpoint, seed=0)
        command = [sys.executable, "-m", "perf.ingest", sampler, video, str(frames), checkpoint]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def _our_row(file: str, sampler: str, result: dict[str, Any]) -> list[Any]:
    return [
        file,
        f"ours, {sampler}",
        result["seconds"],
        result["first_seconds"],
        result["plan_seconds"],
        result["video_seconds"] / result["seconds"],
        result["peak_mb"],
        result["frames"],
        result["decoded"] / result["frames"],
        100 * result["cheapest_cpu_seconds"] / result["cpu_seconds"],
    ]


def _peer_row(file: str, peer: str, result: PeerResult, video_seconds: float) -> list[Any]:
    speed = video_seconds / result.seconds
    return [file, peer, result.seconds, result.seconds, "", speed, result.peak_mb, len(result.times), "", ""]


if __name__ == "__main__":
    main()
