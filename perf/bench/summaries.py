"""`make bench-summaries`: a video eight times longer than the context, summarised part by part.

The parts in flight together against one after the other, on the same server with the same answers; the chapters against
those of each part asked alone; the server's memory against that of the first part. Nothing is remembered between
requests.

Generation takes most of the time: each part's prompt of about 1,000 tokens is read at once, its answer of 256 is not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import av

from build.assemble.checkpoint_factory import Shape
from perf.support import report
from perf.support.memory import own_mib_of_family
from perf.support.setup import command_line, random_checkpoint
from qwen3_vl_client import AsyncClient, Look
from qwen3_vl_client.summaries import Cut, PartDone, Summary, SummaryOptions
from tests.support.media import draw_frame
from tests.support.serving import Server

SHAPE = Shape(layers=4, hidden=512, heads=16, kv_heads=4, intermediate=1536, vision_hidden=128, vision_intermediate=384)
CONTEXT = 1408
CACHED_PROMPTS = 10
FILM = "film.mp4"
FPS = 4
SCENE_SECONDS = 6
SETTINGS = {
    "video_preprocess.context_length": str(CONTEXT),
    "decoder.context_length": str(CONTEXT),
    "decoder.kv_cache_tokens": str(CACHED_PROMPTS * CONTEXT),
    "decoder.prefix_cache": "false",
    "decoder.threads": "1",
    "vision_encoder.threads": "1",
    "video_preprocess.cache_bytes": "0",
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
            peak[0] = max(peak[0], own_mib_of_family(server.pids()["triton"]))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield peak
    finally:
        over.set()
        watching.join()


@dataclass(frozen=True)
class Run:
    """A summary, or its beginning. `seconds` until the last of `done` was done; `peak_mib` is the server's."""

    parts: int
    done: tuple[PartDone, ...]
    seconds: float
    peak_mib: float
    summary: Summary | None


async def summarize(server: Server, client: AsyncClient, options: SummaryOptions, left_after: int | None = None) -> Run:
    """To the end, or until so many parts are done."""
    done: list[PartDone] = []
    summary = None
    with peak_mib(server) as peak:
        events = client.summarize(uri=FILM, options=options)
        cut = await anext(events)
        assert isinstance(cut, Cut)
        started = time.perf_counter()
        async for event in events:
            if isinstance(event, PartDone):
                done.append(event)
                seconds = time.perf_counter() - started
            elif isinstance(event, Summary):
                summary = event
            if len(done) == left_after:
                break
        await events.aclose()
    return Run(len(cut.parts), tuple(done), seconds, peak[0], summary)


async def fill_kv_cache(client: AsyncClient) -> None:
    """Writes to all of it at once: what the server holds from its start on counts in every peak."""
    prompt = "0123456789" * (CONTEXT // 10 - 10)  # a token a digit, and room for the chat's template
    await asyncio.gather(*(client.ask(question=prompt, max_tokens=1) for _ in range(CACHED_PROMPTS)))


async def measure(server: Server, options: SummaryOptions) -> tuple[Look, Run, Run, Run]:
    """The film's look; its first part; its parts one after the other; and in flight together, merged."""
    alone = replace(options, in_flight=1)
    async with AsyncClient(server.grpc_url) as client:
        look = await client.look(uri=FILM, video_options=options.video_options)
        await fill_kv_cache(client)
        await summarize(server, client, alone, left_after=1)  # libraries set up what they keep
        first = await summarize(server, client, alone, left_after=1)
        one_by_one = await summarize(server, client, alone, left_after=first.parts)
        return look, first, one_by_one, await summarize(server, client, options)


def in_place(run: Run) -> bool:
    """Whether every chapter lies in its part, and none overlaps the next."""
    within = all(
        event.part.start <= chapter.start < chapter.end <= event.part.end
        for event in run.done
        for chapter in event.chapters
    )
    chapters = run.summary.chapters if run.summary else ()
    return within and all(before.end <= after.start for before, after in pairwise(chapters))


def main() -> None:
    parser = command_line("bench-summaries", __doc__)
    parser.add_argument("--seconds", type=int, default=480, help="of the film")
    parser.add_argument("--part-seconds", type=float, default=30)
    parser.add_argument("--in-flight", type=int, default=SummaryOptions.in_flight)
    parser.add_argument("--tokens", type=int, default=256, help="of an answer at most")
    arguments = parser.parse_args()
    options = SummaryOptions(
        part_seconds=arguments.part_seconds,
        in_flight=arguments.in_flight,
        sampling={"temperature": 0.0, "max_tokens": arguments.tokens},
        # The same density in the whole film and in a part.
        video_options={"max_frames": 65_536, "sampler": "uniform", "fps": FPS},
    )
    with random_checkpoint(SHAPE) as (folder, checkpoint):
        media = folder / "media"
        media.mkdir()
        make_film(media / FILM, arguments.seconds)
        with Server(checkpoint, {**SETTINGS, "video_preprocess.media_root": str(media)}) as server:
            look, first, one_by_one, together = asyncio.run(measure(server, options))

    found_alone = [chapter for event in one_by_one.done for chapter in event.chapters]
    assert together.summary is not None
    found = sum(chapter in together.summary.chapters for chapter in found_alone)
    report.finish(
        "bench-summaries",
        workload={**vars(arguments), "shape": str(SHAPE), "context": CONTEXT, "wanted_tokens": look.wanted_tokens},
        columns=("what", "parts", "seconds", "chapters", "peak MiB"),
        rows=[
            (what, len(run.done), run.seconds, sum(len(event.chapters) for event in run.done), run.peak_mib)
            for what, run in (
                ("the first part alone", first),
                ("one by one", one_by_one),
                (f"{arguments.in_flight} in flight, then merged", together),
            )
        ],
        figures=[
            report.Figure("video / context", look.wanted_tokens / CONTEXT, "×", at_least=8),
            report.Figure(
                "found of the chapters of parts alone", found, f"of {len(found_alone)}", at_least=len(found_alone)
            ),
            report.Figure("chapters in place and in order", in_place(together), "", at_least=1),
            report.Figure("parts in flight / one by one", one_by_one.seconds / together.seconds, "×", at_least=2),
            report.Figure("peak one by one / the first part's", one_by_one.peak_mib / first.peak_mib, "×", at_most=1.1),
            report.Figure("peak in flight / the first part's", together.peak_mib / first.peak_mib, "×", at_most=1.1),
        ],
    )


if __name__ == "__main__":
    main()
