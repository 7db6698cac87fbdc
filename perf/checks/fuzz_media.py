"""Damaged media through stage 1: each case must end in an answer or a clear error, in time, and leave no memory behind.

    python -m perf.checks.fuzz_media [--cases N] [--seed N]

A case is a valid small file of one of the accepted containers and codecs with a few random changes; its number and the
seed make it again (`--first`). The stage runs in a process of its own, which a crash ends and a hang stops.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from build.assemble.checkpoint_factory import make_checkpoint
from preprocess.request.request import Inputs
from preprocess.service import Parameters, Service
from tests.support.media import make_image, make_video
from tests.support.recipient import Recipient

CASE_SECONDS = 20.0
"""More than any of these files takes on a busy machine."""
CODES = ("invalid_argument", "not_found", "resource_exhausted")
MEMORY_MB = 64.0
"""The growth that is allowed to the process after WARM_UP of the cases."""
WARM_UP = 0.3
VIDEOS = (
    ("mp4", "libx264"),
    ("mov", "libx264"),
    ("mkv", "libx264"),
    ("avi", "mpeg4"),
    ("mp4", "mpeg4"),
    ("mp4", "libx265"),
    ("mkv", "libx265"),
    ("webm", "libvpx"),
    ("webm", "libvpx-vp9"),
    ("mp4", "libsvtav1"),
    ("mkv", "libsvtav1"),
)
IMAGES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

Mutation = Callable[[np.random.Generator, bytearray], None]


def flip_bits(rng: np.random.Generator, content: bytearray) -> None:
    for _ in range(rng.integers(1, 32)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)


def overwrite_number(rng: np.random.Generator, content: bytearray) -> None:
    """An extreme value where a length, a time or a count may be."""
    value = int(rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]))
    place = rng.integers(max(len(content) - 4, 1))
    content[place : place + 4] = value.to_bytes(4, rng.choice(["big", "little"]))


def cut_off(rng: np.random.Generator, content: bytearray) -> None:
    del content[rng.integers(len(content)) :]


def cut_out(rng: np.random.Generator, content: bytearray) -> None:
    start = rng.integers(len(content))
    del content[start : start + rng.integers(1, 1000)]


def repeat(rng: np.random.Generator, content: bytearray) -> None:
    start, place = rng.integers(len(content), size=2)
    content[place:place] = content[start : start + rng.integers(1, 4000)]


def blank(rng: np.random.Generator, content: bytearray) -> None:
    start = rng.integers(len(content))
    length = min(int(rng.integers(1, 2000)), len(content) - start)
    content[start : start + length] = bytes([rng.choice([0, 255])]) * length


MUTATIONS: tuple[Mutation, ...] = (flip_bits, overwrite_number, cut_off, cut_out, repeat, blank)


def valid_files(folder: Path) -> list[tuple[str, bytes]]:
    """Name and content."""
    files = []
    for suffix, codec in VIDEOS:
        path = folder / f"{codec}.{suffix}"
        make_video(path, width=64, height=48, frames=18, key_frame_interval=6, codec=codec, audio=suffix != "avi")
        files.append((path.name, path.read_bytes()))
    return files + [(f"image.{format.lower()}", make_image(width=64, height=48, format=format)) for format in IMAGES]


def damaged(files: list[tuple[str, bytes]], seed: int, number: int) -> tuple[str, bytes]:
    rng = np.random.default_rng((seed, number))
    name, content = files[rng.integers(len(files))]
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if changed:
            MUTATIONS[rng.integers(len(MUTATIONS))](rng, changed)
    return name, bytes(changed)


def work(
    pipe: Connection, files: list[tuple[str, bytes]], seed: int, checkpoint: Path, credits_directory: Path
) -> None:
    """The process that serves: gets case numbers, answers with an outcome and its resident memory."""
    parameters = Parameters(
        checkpoint=checkpoint,
        media_root=None,
        credits_directory=credits_directory,
        context_length=None,
        chunk_tokens=64,
        heartbeat_seconds=1.0,
        # The one before may still be closing its pipe.
        max_requests=2,
        max_attachments=1,
        max_frame_pixels=1 << 22,
        cache_directory=credits_directory.with_name("cache"),
    )
    service = Service(parameters)
    while (number := pipe.recv()) is not None:
        name, content = damaged(files, seed, number)
        medium = {"images" if name.startswith("image") else "videos": [content]}
        recipient = Recipient(credits_directory)
        service.submit(Inputs(text="?", video_options='{"max_frames": 8}', **medium), recipient)
        recipient.wait()
        pipe.send((recipient.error or "answered", resident_mb()))
    service.shut_down()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


class Worker:
    """The serving process, started again when it ends."""

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, number: int) -> tuple[str, float]:
        """The outcome of a case and the resident memory in MB after it, 0 where the process did not survive."""
        self._pipe.send(number)
        try:
            if self._pipe.poll(CASE_SECONDS):
                outcome: tuple[str, float] = self._pipe.recv()
                return outcome
            failure = f"hang: no end after {CASE_SECONDS:g} s"
        except EOFError:
            self._process.join()
            failure = f"crash: exit status {self._process.exitcode}"
        self.stop()
        self._start()
        return failure, 0.0

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_checkpoint(folder / "checkpoint", seed=0)
        files = valid_files(folder)
        worker = Worker(files, arguments.seed, folder / "checkpoint", folder / "credits")
        for number in range(arguments.first, arguments.first + arguments.cases):
            outcome, resident = worker.run(number)
            code = outcome.split(":", 1)[0]
            outcomes[code] += 1
            if code not in ("answered", *CODES):
                failures.append(f"case {number} ({damaged(files, arguments.seed, number)[0]}): {outcome}")
                memory.clear()
            else:
                memory.append(resident)
        worker.stop()
    print(f"{arguments.cases} cases, seed {arguments.seed}: {dict(outcomes)}")
    if memory:
        grown = memory[-1] - memory[int(len(memory) * WARM_UP)]
        print(f"memory: {memory[-1]:.0f} MB, {grown:+.0f} MB after the first {WARM_UP:.0%} of the cases")
        if grown > MEMORY_MB:
            failures.append(f"memory grew by {grown:.0f} MB; at most {MEMORY_MB:g} are accepted")
    print(*failures[:50], sep="\n")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
