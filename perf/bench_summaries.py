"""`make bench-summaries`: a video eight times longer than the context, summarised part by part.

The parts in flight together against one after the other, on the same server with the same answers; the chapters against
those of each part asked alone; the server's memory against that of one part. Nothing is remembered between requests.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import av
import report
from checkpoint_factory import Shape, make_checkpoint
from media import draw_frame
from qwen3_vl_client import AsyncClient, Look
from qwen3_vl_client.summaries import PartDone, Summary, SummaryOptions
from serving import Server

SHAPE = Shape(layers=5, hidden=256, heads=8, kv_heads=4, intermediate=768, vision_hidden=128, vision_intermediate=384)
CONTEXT = 2048
FILM = "film.mp4"
FPS = 4
SCENE_SECONDS = 20
SETTINGS = {
    "video_preprocess.context_length": str(CONTEXT),
    "decoder.context_length": str(CONTEXT),
    "decoder.kv_cache_tokens": str(10 * CONTEXT),
    "decoder.prefix_cache": "false",
    "decoder.threads": "1",
    "vision_encoder.threads": "1",
    "video_preprocess.memory_bytes": "0",
}


def make_film(path: Path, seconds: int) -> None:
    """A new scene every SCENE_SECONDS."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(seconds * FPS):
            picture = draw_frame(index, width=128, height=96, seed=index // (SCENE_SECONDS * FPS))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@contextmanager
def peak_mib(server: Server) -> Iterator[list[float]]:
    """The most that the server's processes had resident together, without what they share, while the block ran."""
    peak = [0.0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], sum(map(resident_mib, with_children(server.pids()["triton"]))))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield peak
    finally:
        over.set()
        watching.join()


def with_children(pid: int) -> Iterator[int]:
    """The process and all that it, or its threads, started."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):  # it has ended
            for child in (thread / "children").read_text().split():
                yield from with_children(int(child))


def resident_mib(pid: int) -> float:
    """Without what is shared with other processes; of a process that ended meanwhile, nothing."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return (int(fields[1]) - int(fields[2])) * 4096 / 2**20


@dataclass(frozen=True)
class Run:
    """A summary with so many requests in flight; `peak_mib` is the server's."""

    seconds: float
    peak_mib: float
    parts: tuple[PartDone, ...]
    summary: Summary


async def first_part_peak_mib(server: Server, client: AsyncClient, options: SummaryOptions) -> float:
    """The server's peak while one part is asked about alone: the beginning of a summary, which is then left."""
    with peak_mib(server) as peak:
        events = client.summarize(uri=FILM, options=options)
        async for event in events:
            if isinstance(event, PartDone):
                break
        await events.aclose()
    return peak[0]


async def summarize(server: Server, client: AsyncClient, options: SummaryOptions) -> Run:
    started = time.perf_counter()
    with peak_mib(server) as peak:
        events = [event async for event in client.summarize(uri=FILM, options=options)]
    seconds = time.perf_counter() - started
    summary = events[-1]
    assert isinstance(summary, Summary)
    return Run(seconds, peak[0], tuple(event for event in events if isinstance(event, PartDone)), summary)


async def measure(server: Server, options: SummaryOptions) -> tuple[Look, float, Run, Run]:
    """What the film is, the peak of its first part, and the summary with one and with all requests in flight."""
    alone = replace(options, in_flight=1)
    async with AsyncClient(server.grpc_url) as client:
        look = await client.look(uri=FILM, video_options=options.video_options)
        first_part = await first_part_peak_mib(server, client, alone)
        return look, first_part, await summarize(server, client, alone), await summarize(server, client, options)


def in_place(run: Run) -> bool:
    """Whether every chapter lies in its part, and none overlaps the next."""
    within = all(
        event.part.start <= chapter.start < chapter.end <= event.part.end
        for event in run.parts
        for chapter in event.chapters
    )
    return within and all(before.end <= after.start for before, after in pairwise(run.summary.chapters))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-summaries", description=__doc__)
    parser.add_argument("--seconds", type=int, default=1400, help="of the film (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256, help="of an answer at most (default: %(default)s)")
    arguments = parser.parse_args()
    options = SummaryOptions(
        in_flight=arguments.in_flight,
        sampling={"temperature": 0.0, "max_tokens": arguments.tokens},
        video_options={"max_frames": 65_536},
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        checkpoint, media = Path(folder) / "checkpoint", Path(folder) / "media"
        make_checkpoint(checkpoint, shape=SHAPE)
        media.mkdir()
        make_film(media / FILM, arguments.seconds)
        with Server(checkpoint, {**SETTINGS, "video_preprocess.media_root": str(media)}) as server:
            look, first_part_mib, alone, together = asyncio.run(measure(server, options))

    found_alone = [chapter for event in alone.parts for chapter in event.chapters]
    found = sum(chapter in together.summary.chapters for chapter in found_alone)
    report.finish(
        "bench-summaries",
        workload={**vars(arguments), "shape": str(SHAPE), "context": CONTEXT, "wanted_tokens": look.wanted_tokens},
        columns=("what", "parts", "seconds", "chapters", "peak MiB"),
        rows=[
            ("the first part alone", 1, "", len(alone.parts[0].chapters), first_part_mib),
            ("one part after the other", len(alone.parts), alone.seconds, len(found_alone), alone.peak_mib),
            (
                f"{arguments.in_flight} in flight",
                len(together.parts),
                together.seconds,
                len(together.summary.chapters),
                together.peak_mib,
            ),
        ],
        figures=[
            report.Figure("video / context", look.wanted_tokens / CONTEXT, "×", at_least=8),
            report.Figure(
                "found of the chapters of parts alone", found, f"of {len(found_alone)}", at_least=len(found_alone)
            ),
            report.Figure("chapters in place and in order", in_place(together), "", at_least=1),
            report.Figure("in flight / one after the other", alone.seconds / together.seconds, "×", at_least=2),
            report.Figure("peak one after the other / one part's", alone.peak_mib / first_part_mib, "×", at_most=1.1),
            report.Figure("peak in flight / one part's", together.peak_mib / first_part_mib, "×", at_most=1.1),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
