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
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import report
from checkpoint_factory import Shape, make_checkpoint
from media import draw_frame
from qwen3_vl_client import AsyncClient, Look
from qwen3_vl_client.summaries import Cut, PartDone, Summary, SummaryEvent, SummaryOptions
from serving import Server

SHAPE = Shape(layers=5, hidden=256, heads=8, kv_heads=4, intermediate=768, vision_hidden=128, vision_intermediate=384)
CONTEXT = 4096
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
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listed.read_text().split():
            yield from with_children(int(child))


def resident_mib(pid: int) -> float:
    """Without what is shared with other processes; of a process that ended meanwhile, nothing."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return (int(fields[1]) - int(fields[2])) * 4096 / 2**20


async def summarize(client: AsyncClient, options: SummaryOptions) -> tuple[float, list[SummaryEvent]]:
    """Seconds and events."""
    started = time.perf_counter()
    events = [event async for event in client.summarize(uri="film.mp4", options=options)]
    return time.perf_counter() - started, events


async def measure(server: Server, options: SummaryOptions) -> tuple[Look, dict[str, float], dict[str, int]]:
    async with AsyncClient(server.grpc_url) as client:
        look = await client.look(uri="film.mp4", video_options=options.video_options)
        # One part alone: the first events of a summary with one request in flight, then it is left.
        with peak_mib(server) as part_peak:
            alone = client.summarize(uri="film.mp4", options=replace(options, in_flight=1))
            async for event in alone:
                if isinstance(event, PartDone):
                    break
            await alone.aclose()
        with peak_mib(server) as whole_peak:
            together, events = await summarize(client, options)
        one_by_one, alone_events = await summarize(client, replace(options, in_flight=1))

    cut, summary = events[0], events[-1]
    assert isinstance(cut, Cut)
    assert isinstance(summary, Summary)
    found_alone = [chapter for event in alone_events if isinstance(event, PartDone) for chapter in event.chapters]
    true_times = all(
        event.part.start <= chapter.start < chapter.end <= event.part.end
        for event in events
        if isinstance(event, PartDone)
        for chapter in event.chapters
    ) and all(before.end <= after.start for before, after in pairwise(summary.chapters))
    seconds = {"together": together, "one_by_one": one_by_one, "part": part_peak[0], "whole": whole_peak[0]}
    counts = {
        "parts": len(cut.parts),
        "chapters": len(summary.chapters),
        "found": sum(chapter in summary.chapters for chapter in found_alone),
        "alone": len(found_alone),
        "true_times": int(true_times),
    }
    return look, seconds, counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-summaries", description=__doc__)
    parser.add_argument("--seconds", type=int, default=1600, help="of the film (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="of an answer at most (default: %(default)s)")
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
        make_film(media / "film.mp4", arguments.seconds)
        with Server(checkpoint, {**SETTINGS, "video_preprocess.media_root": str(media)}) as server:
            look, measured, counts = asyncio.run(measure(server, options))

    report.finish(
        "bench-summaries",
        workload={**vars(arguments), "shape": str(SHAPE), "context": CONTEXT, "wanted_tokens": look.wanted_tokens},
        columns=("what", "seconds", "chapters", "peak MiB"),
        rows=[
            (f"{arguments.in_flight} parts in flight", measured["together"], counts["chapters"], measured["whole"]),
            ("one part after the other", measured["one_by_one"], counts["alone"], ""),
            ("the first part alone", "", "", measured["part"]),
        ],
        figures=[
            report.Figure("video / context", look.wanted_tokens / CONTEXT, "×", at_least=8),
            report.Figure(
                "chapters of parts asked alone that are found",
                counts["found"],
                f"of {counts['alone']}",
                at_least=counts["alone"],
            ),
            report.Figure("chapters in order and within their parts", counts["true_times"], "", at_least=1),
            report.Figure(
                "in flight / one after the other", measured["one_by_one"] / measured["together"], "×", at_least=2
            ),
            report.Figure("peak memory / one part's", measured["whole"] / measured["part"], "×", at_most=1.2),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
