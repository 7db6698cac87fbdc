"""`make bench-overlap`: the time to the first token when the stages work at the same time, against one after the other.

Two cores cannot do two stages faster by overlapping them, so this is measured with stages 2 and 3 paced like a device:
each chunk takes the time that a throughput gives, without using the CPU (`paced/`). Stage 1, the server and the credits
between the stages are the real ones. Stage 1's own time is measured with the others taking none. Beside it the memory
of stage 1 and of stage 2, which must not grow with the video.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import report
from checkpoint_factory import SHAPES, make_checkpoint
from media import make_video
from qwen3_vl_client import Client, Timeouts
from serving import Server, assemble_checkpoint

PACED = Path(__file__).parent / "paced"
SHAPE = SHAPES["small"]
STAGES = ("video_preprocess", "vision_encoder")
# Two frames a second of 128 tokens, as far as 100,000 tokens go.
OPTIONS = {"sampler": "uniform", "max_frames": 2048, "max_tokens_per_frame": 128, "max_video_tokens": 100_000}
WIDTH, HEIGHT, FRAMES_PER_SECOND = 480, 272, 4


@dataclass(frozen=True)
class Asked:
    """What one request took. peaks: MiB of each stage that is its own."""

    first_token: float
    prompt_tokens: int
    video_tokens: int
    peaks: dict[str, float]


def assemble_paced(checkpoint: Path, destination: Path, settings: Mapping[str, str]) -> None:
    assemble_checkpoint(checkpoint, destination, settings)
    for double, place in (("session.py", "vision_encoder/1/encoder"), ("engines.py", "decoder/1/engine")):
        shutil.copy(PACED / double, destination / place / double)


def ask(checkpoint: Path, root: Path, clips: list[str], *, encode: float, prefill: float) -> list[Asked]:
    """Each clip once, by a server whose stages take these seconds per token."""
    os.environ["PACED_ENCODE_SECONDS_PER_TOKEN"] = str(encode)
    os.environ["PACED_PREFILL_SECONDS_PER_TOKEN"] = str(prefill)
    os.environ["PACED_FEATURE_WIDTH"] = str(SHAPE.hidden * (1 + len(SHAPE.deepstack_levels)))
    settings = {"video_preprocess.media_root": str(root)}
    timeouts = Timeouts(silence=600)
    asked = []
    with (
        Server(checkpoint, settings, assemble=assemble_paced) as server,
        Client(server.grpc_url, timeouts=timeouts) as client,
    ):
        client.ask(question="What?", uri=clips[0], sampler="uniform", max_frames=8)
        for clip in clips:
            with Peaks(server.pids()) as peaks:
                usage = client.ask(question="What?", uri=clip, video_options=OPTIONS).usage
            first_token = usage.seconds["first_token"]
            asked.append(Asked(first_token, usage.prompt_tokens, usage.video_tokens, peaks.mib))
    return asked


class Peaks:
    """The most memory of its own that each stage has while the `with` block runs, looked at five times a second."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._status = {stage: Path(f"/proc/{pids[stage]}/status") for stage in STAGES}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.mib = dict.fromkeys(STAGES, 0.0)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._ended.wait(0.2):
            for stage, status in self._status.items():
                line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon:"))
                self.mib[stage] = max(self.mib[stage], int(line.split()[1]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-overlap", description=__doc__)
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60])
    parser.add_argument("--encode", type=float, default=3000, help="visual tokens per second of stage 2")
    parser.add_argument("--prefill", type=float, default=3000, help="tokens per second of stage 3")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        checkpoint, root = Path(folder) / "checkpoint", Path(folder) / "media"
        root.mkdir()
        make_checkpoint(checkpoint, shape=SHAPE)
        clips = [f"{minutes}.mp4" for minutes in arguments.minutes]
        for clip, minutes in zip(clips, arguments.minutes, strict=True):
            frames = 60 * minutes * FRAMES_PER_SECOND
            make_video(root / clip, width=WIDTH, height=HEIGHT, frames=frames, fps=FRAMES_PER_SECOND)
        alone = ask(checkpoint, root, clips, encode=0, prefill=0)
        together = ask(checkpoint, root, clips, encode=1 / arguments.encode, prefill=1 / arguments.prefill)
    rows, figures = [], []
    for minutes, first, streamed in zip(arguments.minutes, alone, together, strict=True):
        encode, prefill = streamed.video_tokens / arguments.encode, streamed.prompt_tokens / arguments.prefill
        slowest, staged = max(first.first_token, encode, prefill), first.first_token + encode + prefill
        memory = streamed.peaks
        rows.append((minutes, first.first_token, encode, prefill, staged, streamed.first_token, *memory.values()))
        figures.append(
            report.Figure(f"{minutes} min: over the slowest stage", streamed.first_token / slowest, "×", at_most=1.15)
        )
    for stage in STAGES:
        most = together[-1].peaks[stage] / together[0].peaks[stage] - 1
        figures.append(report.Figure(f"{stage}: growth with the video", 100 * most, "%", at_most=10))
    report.finish(
        "bench-overlap",
        workload={**vars(arguments), "video": f"{WIDTH}x{HEIGHT}, {FRAMES_PER_SECOND} frames/s", **OPTIONS},
        columns=("minutes", "stage 1, s", "stage 2", "stage 3", "staged", "streamed", "MiB, stage 1", "MiB, stage 2"),
        rows=rows,
        figures=figures,
    )


if __name__ == "__main__":
    sys.exit(main())
