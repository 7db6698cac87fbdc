"""`make bench-ingest`: stage 1 on long videos, beside other readers of the same files with as many frames.

`--long` is the film that the bars on speed are about; `--compared` the length of the film, the HEVC and the phone's
file that the peers read too, at the same density of frames; `--ssim` that of the film for the SSIM loop, which is
compared by its speed. Memory is the peak of a whole process. "cheapest" is the processor time of decoding the frames
used, from the key frame before each and nothing else, as a share of ours. The files that bars are about are read
`ROUNDS` times, by all readers in turns, and the middle one of each counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from build.assemble.checkpoint_factory import make_checkpoint
from perf.support import clips
from perf.support.peers import PeerError, PeerResult, run_peer
from perf.support.report import Figure, finish
from perf.support.setup import command_line

Run = TypeVar("Run")

BACKENDS = ("torchcodec", "decord", "torchvision")
SECONDS_PER_FRAME = 7200 / 768
"""The reference's most frames, over two hours."""
ROUNDS = 3
COLUMNS = (
    *("file", "reader", "total s", "first s", "plan s", "x real time", "MB", "frames"),
    *("decoded per used", "cheapest %"),
)


@dataclass
class Results:
    """The rows and figures of the report, and why readers failed, by file and reader."""

    rows: list[list[Any]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def peer(self, file: str, peer: str, path: Path, frames: int) -> PeerResult | None:
        """A peer that reads the file. None if it fails."""
        _tell(f"{path.name}: {peer}")
        try:
            return run_peer(peer, path, frames)
        except PeerError as error:
            self.failures[f"{file}, {peer}"] = str(error)
            return None


def main() -> None:
    parser = command_line("bench-ingest", __doc__)
    parser.add_argument("--long", type=float, default=7200, help="seconds of the long film")
    parser.add_argument("--compared", type=float, default=600, help="seconds of the files that peers read")
    parser.add_argument("--ssim", type=float, default=15, help="seconds of the film for the SSIM loop")
    arguments = parser.parse_args()

    results = Results()
    speed = read_long_film(results, arguments.long)
    compare(results, "film", clips.long_clip(arguments.compared), arguments.compared, ROUNDS)
    compare(results, "hevc", clips.hevc_clip(arguments.compared), arguments.compared, 1)
    compare(results, "phone", clips.phone_clip(arguments.compared), arguments.compared, 1)
    compare_ssim(results, arguments.ssim, speed)
    for reader, failure in results.failures.items():
        print(f"{reader}: {failure}")
    finish(
        "bench-ingest",
        workload={
            **vars(arguments),
            "seconds_per_frame": SECONDS_PER_FRAME,
            "rounds": ROUNDS,
            "picture": "1920x1080",
            "failures": results.failures,
        },
        columns=COLUMNS,
        rows=results.rows,
        figures=results.figures,
    )


def read_long_film(results: Results, seconds: float) -> float:
    """Stage 1 alone, against the bars. Returns its speed in seconds of film a second."""
    film = _warm(clips.long_clip(seconds))
    ours = _middle([_ingest("adaptive", film.path, _frames(seconds)) for _ in range(ROUNDS)], _our_seconds)
    results.rows.append(_our_row("film, long", "adaptive", ours))
    speed: float = ours["video_seconds"] / ours["seconds"]
    again = 100 * ours["follow_up_seconds"] / ours["seconds"]
    results.figures += [
        Figure("long film: planned in", ours["plan_seconds"], "s", at_most=15),
        Figure("long film: first chunk after", ours["first_seconds"], "s", at_most=3),
        Figure("long film: speed", speed, "x real time", at_least=120),
        Figure("long film: peak memory", ours["peak_mb"], "MB", at_most=600),
        Figure("long film: follow-up", again, "% of the first", at_most=2),
    ]
    return speed


def compare(results: Results, name: str, clip: clips.Clip, seconds: float, rounds: int) -> None:
    """Stage 1 and the peers on one file, in turns."""
    _warm(clip)
    frames = _frames(seconds)
    ours: dict[str, list[dict[str, Any]]] = defaultdict(list)
    theirs: dict[str, list[PeerResult]] = defaultdict(list)
    for _ in range(rounds):
        for sampler in ("adaptive", "uniform"):
            ours[sampler].append(_ingest(sampler, clip.path, frames))
        for backend in BACKENDS:
            if (result := results.peer(name, backend, clip.path, frames)) is not None:
                theirs[backend].append(result)
    middle = {sampler: _middle(runs, _our_seconds) for sampler, runs in ours.items()}
    peers = {backend: _middle(runs, lambda run: run.seconds) for backend, runs in theirs.items()}
    results.rows += [_our_row(name, sampler, result) for sampler, result in middle.items()]
    results.rows += [_peer_row(name, backend, result, seconds) for backend, result in peers.items()]
    if name == "film" and peers:
        ratio = min(result.seconds for result in peers.values()) / middle["adaptive"]["seconds"]
        results.figures.append(Figure("film: faster than the best backend", ratio, "x", at_least=10))


def compare_ssim(results: Results, seconds: float, speed: float) -> None:
    """The SSIM loop on a film so short that it ends, against the `speed` of stage 1 on the long one."""
    ssim = results.peer("film, short", "ssim", clips.long_clip(seconds).path, _frames(seconds))
    if ssim is not None:
        results.rows.append(_peer_row("film, short", "ssim", ssim, seconds))
        ratio = speed / (seconds / ssim.seconds)
        results.figures.append(Figure("long film: faster than the SSIM loop", ratio, "x", at_least=30))


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _frames(seconds: float) -> int:
    return max(round(seconds / SECONDS_PER_FRAME), 2)


def _our_seconds(run: dict[str, Any]) -> float:
    seconds: float = run["seconds"]
    return seconds


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
        command = [sys.executable, "-m", "perf.support.ingest", sampler, video, str(frames), checkpoint]
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
