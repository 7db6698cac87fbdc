"""`make bench-overlap`: the time to the first token when the stages work at the same time, against one after the other.

Two cores cannot do two stages faster by overlapping them, so this is measured twice. As it is here: overlapping must
not cost anything against the sum of what each stage takes when it has the cores to itself. And with stages 2 and 3
paced like a device: each chunk takes the time that a throughput gives, without using the CPU (`paced/`); stage 1, the
server and the credits between the stages are the real ones. Stage 1's own time is measured with the others taking none,
those of stages 2 and 3 in this process, without a server between them. Beside it the memory of stage 1 and of stage 2,
which must not grow with the video: the longest one's beside that of the one before, because chunks of a short prompt
are smaller. No prompt is kept from one request to the next.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from build.assemble.checkpoint_factory import SHAPES
from encoder.chunk import MERGED_PATCHES, PATCH_VALUES, Chunk
from encoder.session import VisionEncoder
from perf.support import report
from perf.support.memory import forget_peaks_of_family, own_peak_mib_of_family
from perf.support.setup import command_line, random_checkpoint
from qwen3_vl_client import Client, Timeouts
from tests.support.harness import Harness, Prompt, greedy, make_settings
from tests.support.media import make_video
from tests.support.serving import Server, assemble_checkpoint

PACED = Path(__file__).parents[1] / "paced"
SHAPE = SHAPES["small"]
FEATURE_WIDTH = SHAPE.hidden * (1 + len(SHAPE.deepstack_levels))
STAGES = ("video_preprocess", "vision_encoder")
# Two frames a second of 128 tokens, as far as 100,000 tokens go.
OPTIONS = {"sampler": "uniform", "max_frames": 2048, "max_tokens_per_frame": 128, "max_video_tokens": 100_000}
AS_IT_IS = OPTIONS | {"max_video_tokens": 16_384}
"""As much as two cores get through in a minute."""
CHUNK_TOKENS = 512
"""Half of the default: so the ten minutes' chunks are as large as the hour's, which else have more tokens each, and
would be more memory."""
WIDTH, HEIGHT, FRAMES_PER_SECOND = 480, 272, 4
FIRST_CLIP = "first.mp4"


@dataclass(frozen=True)
class Asked:
    """The times of one request, in seconds. frames: temporal patches; peaks: MiB of each stage that is its own."""

    first_token: float
    prompt_tokens: int
    frames: int
    tokens_per_frame: int
    peaks: dict[str, float]


def assemble_paced(checkpoint: Path, destination: Path, settings: Mapping[str, str]) -> None:
    assemble_checkpoint(checkpoint, destination, settings)
    for double, place in (("session.py", "vision_encoder/1/encoder"), ("create.py", "decoder/1/engines")):
        shutil.copy(PACED / double, destination / place / double)


def settings_of(root: Path) -> dict[str, str]:
    return {
        "video_preprocess.media_root": str(root),
        "video_preprocess.chunk_tokens": str(CHUNK_TOKENS),
        "decoder.prefix_cache": "false",
    }


def ask_all(server: Server, clips: list[str], options: Mapping[str, Any]) -> list[Asked]:
    """Each clip once, after a question about another that has everything set up."""
    asked = []
    with Client(server.grpc_url, timeouts=Timeouts(silence=600)) as client:
        client.ask(question="What?", uri=FIRST_CLIP, video_options=options, max_tokens=1)
        for clip in clips:
            with Peaks(server.pids()) as peaks:
                usage = client.ask(question="What?", uri=clip, video_options=options, max_tokens=1).usage
            frames, height, width = usage.media[0].grid
            asked.append(
                Asked(
                    usage.seconds["first_token"],
                    usage.prompt_tokens,
                    frames,
                    height * width // MERGED_PATCHES,
                    peaks.mib,
                )
            )
    return asked


def ask_paced(
    checkpoint: Path, root: Path, clips: list[str], options: Mapping[str, Any], *, encode: float, prefill: float
) -> list[Asked]:
    """By a server whose stages 2 and 3 take these seconds per token."""
    os.environ["PACED_ENCODE_SECONDS_PER_TOKEN"] = str(encode)
    os.environ["PACED_PREFILL_SECONDS_PER_TOKEN"] = str(prefill)
    os.environ["PACED_FEATURE_WIDTH"] = str(FEATURE_WIDTH)
    with Server(checkpoint, settings_of(root), assemble=assemble_paced) as server:
        return ask_all(server, clips, options)


def encode_alone(onnx: Path, asked: Asked) -> float:
    """Seconds of stage 2 for a video, in chunks as large as stage 1 makes them; what they show does not matter."""
    encoder = VisionEncoder(onnx)
    patches = asked.tokens_per_frame * MERGED_PATCHES
    chunk = Chunk(
        np.zeros((CHUNK_TOKENS // asked.tokens_per_frame, patches, PATCH_VALUES), np.uint8),
        np.zeros((patches, 4), np.int32),
        np.full((patches, 4), 0.25, np.float32),
        np.ones((patches, encoder.head_dim), np.float32),
        np.zeros((patches, encoder.head_dim), np.float32),
    )
    encoder.encode(chunk)
    whole, rest = divmod(asked.frames, len(chunk.patches))
    started = time.perf_counter()
    for _ in range(whole):
        encoder.encode(chunk)
    if rest:
        encoder.encode(replace(chunk, patches=chunk.patches[:rest]))
    return time.perf_counter() - started


def prefill_alone(checkpoint: Path, asked: Asked) -> float:
    """Seconds of stage 3 from a prompt that is all there to its first token."""
    tokens = asked.prompt_tokens
    prompt = Prompt(
        np.arange(tokens, dtype=np.int32) % 100 + 100,
        np.tile(np.arange(tokens, dtype=np.int32), (3, 1)),
        np.zeros((0, FEATURE_WIDTH), np.float32),
        np.zeros(tokens, bool),
    )
    harness = Harness(make_settings(checkpoint, kv_cache_tokens=tokens + CHUNK_TOKENS, prefix_cache=False))
    try:
        started = time.perf_counter()
        harness.ask(prompt, greedy(1), *range(CHUNK_TOKENS, tokens, CHUNK_TOKENS))
        return time.perf_counter() - started
    finally:
        harness.engine.close()


class Peaks:
    """The most memory of its own that each stage has while the `with` block runs. Stage 1's workers are part of it:
    each counts with its peak, as long as it runs."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = {stage: pids[stage] for stage in STAGES}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.mib = dict.fromkeys(STAGES, 0.0)

    def __enter__(self) -> Peaks:
        for pid in self._pids.values():
            forget_peaks_of_family(pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _loop(self) -> None:
        while not self._ended.wait(0.2):
            self._look()

    def _look(self) -> None:
        for stage, pid in self._pids.items():
            self.mib[stage] = max(self.mib[stage], own_peak_mib_of_family(pid))


def main() -> None:
    parser = command_line("bench-overlap", __doc__)
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60])
    parser.add_argument("--encode", type=float, default=3000, help="visual tokens per second of stage 2")
    parser.add_argument("--prefill", type=float, default=3000, help="tokens per second of stage 3")
    arguments = parser.parse_args()
    with random_checkpoint(SHAPE) as (folder, checkpoint):
        root = folder / "media"
        root.mkdir()
        make_video(root / FIRST_CLIP, width=WIDTH, height=HEIGHT, frames=45 * FRAMES_PER_SECOND, fps=FRAMES_PER_SECOND)
        clips = [f"{minutes}.mp4" for minutes in arguments.minutes]
        for clip, minutes in zip(clips, arguments.minutes, strict=True):
            frames = 60 * minutes * FRAMES_PER_SECOND
            make_video(root / clip, width=WIDTH, height=HEIGHT, frames=frames, fps=FRAMES_PER_SECOND)
        stage_1 = ask_paced(checkpoint, root, clips, AS_IT_IS, encode=0, prefill=0)
        with Server(checkpoint, settings_of(root)) as server:
            as_it_is = ask_all(server, clips, AS_IT_IS)
            onnx = next(server.repository.glob("vision_encoder/1/**/*.onnx"))
            encoding = [encode_alone(onnx, asked) for asked in as_it_is]
        prefilling = [prefill_alone(checkpoint, asked) for asked in as_it_is]
        stage_1_paced = ask_paced(checkpoint, root, clips, OPTIONS, encode=0, prefill=0)
        paced = ask_paced(checkpoint, root, clips, OPTIONS, encode=1 / arguments.encode, prefill=1 / arguments.prefill)
    encoding_paced = [asked.frames * asked.tokens_per_frame / arguments.encode for asked in paced]
    prefilling_paced = [asked.prompt_tokens / arguments.prefill for asked in paced]
    rows, figures = [], []
    for paces, first, second, third, streamed, name in (
        ("as it is", stage_1, encoding, prefilling, as_it_is, "as it is, over one after the other"),
        ("paced", stage_1_paced, encoding_paced, prefilling_paced, paced, "paced, over the slowest stage"),
    ):
        for minutes, one, two, three, asked in zip(arguments.minutes, first, second, third, streamed, strict=True):
            taken = (one.first_token, two, three)
            rows.append(
                (minutes, paces, asked.prompt_tokens, *taken, sum(taken), asked.first_token, *asked.peaks.values())
            )
            limit, bar = (sum(taken), 1.02) if paces == "as it is" else (max(taken), 1.15)
            figures.append(report.Figure(f"{minutes} min {name}", asked.first_token / limit, "×", at_most=bar))
    for paces, streamed in (("as it is", as_it_is), ("paced", paced)):
        for stage in STAGES:
            most = streamed[-1].peaks[stage] / streamed[-2].peaks[stage] - 1
            figures.append(report.Figure(f"{stage}, {paces}: growth with the video", 100 * most, "%", at_most=10))
    report.finish(
        "bench-overlap",
        workload={
            **vars(arguments),
            "video": f"{WIDTH}x{HEIGHT}, {FRAMES_PER_SECOND} frames/s",
            "chunk_tokens": CHUNK_TOKENS,
            **OPTIONS,
        },
        columns=(
            "minutes",
            "stages 2 and 3",
            "tokens",
            "stage 1, s",
            "stage 2",
            "stage 3",
            "staged",
            "streamed",
            "MiB, stage 1",
            "MiB, stage 2",
        ),
        rows=rows,
        figures=figures,
    )


if __name__ == "__main__":
    main()
