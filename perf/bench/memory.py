"""`make bench-memory`: a thousand requests of mixed kinds; the memory of every process of the server must stay flat."""

from __future__ import annotations

import contextlib
import statistics

from rich.progress import track

from build.assemble.checkpoint_factory import SHAPES
from perf.support import report
from perf.support.memory import own_mib, own_mib_of_children
from perf.support.setup import command_line, random_checkpoint, served
from qwen3_vl_client import Client, Qwen3VLError
from tests.support.media import make_image, make_video
from tests.support.serving import Server


def resident(server: Server) -> dict[str, float]:
    """MiB of each process; stage 1's workers come and go, and count as one."""
    pids = server.pids()
    alone = {name: own_mib(pid) for name, pid in pids.items()}
    return {**alone, "workers": own_mib_of_children(pids["video_preprocess"])}


def ask(client: Client, number: int, videos: list[bytes], images: list[bytes]) -> None:
    """One request; which kind depends on its number."""
    sampling = {"temperature": 0.0, "max_tokens": 4 + number % 13, "ignore_eos": True}
    match number % 6:
        case 0:
            client.ask(question="Hello " * (1 + number % 40), sampling=sampling)
        case 1 | 2:
            client.ask(videos[number % len(videos)], "What?", sampling=sampling)
        case 3:
            client.ask(image=images[number % len(images)], question="What?", sampling=sampling)
        case 4:  # rubbish
            with contextlib.suppress(Qwen3VLError):
                client.ask(b"no video" * number, "What?", sampling=sampling)
        case 5:  # goes away in the middle
            with client.stream(videos[number % len(videos)], "What?", max_tokens=500, ignore_eos=True) as stream:
                next(stream)
                next(stream)


def main() -> None:
    parser = command_line("bench-memory", __doc__)
    parser.add_argument("--warm-up", type=int, default=1000, help="requests before the first that counts")
    parser.add_argument("--requests", type=int, default=1000, help="requests that count")
    arguments = parser.parse_args()
    with random_checkpoint(SHAPES["small"]) as (folder, checkpoint):
        videos = []
        for seed in range(5):
            path = folder / f"{seed}.mp4"
            make_video(path, width=96 + 64 * seed, height=128, frames=8 + 12 * seed, fps=8, seed=seed)
            videos.append(path.read_bytes())
        images = [make_image(width=64 + 32 * seed, height=100, seed=seed) for seed in range(5)]
        memory: dict[str, list[float]] = {}
        with served(checkpoint, {"decoder.kv_cache_tokens": "16384"}) as (server, client):
            for number in track(range(arguments.warm_up + arguments.requests), "requests"):
                ask(client, number, videos, images)
                for name, mib in resident(server).items():
                    memory.setdefault(name, []).append(mib)

    memory["all"] = [sum(values) for values in zip(*memory.values(), strict=True)]
    window = max(1, arguments.requests // 10)
    rows, growth = [], {}
    for name, values in memory.items():
        counted = values[arguments.warm_up :]
        before, after = statistics.median(counted[:window]), statistics.median(counted[-window:])
        growth[name] = after - before
        rows.append((name, values[0], before, after, max(values)))
    whole = rows[-1][2]
    # In shares of the whole: some hundred kilobytes are much for the smallest process, and little for a server.
    figures = [
        report.Figure(f"{name}: growth", 100 * mib / whole, "% of all", at_most=1) for name, mib in growth.items()
    ]
    report.finish(
        "bench-memory",
        workload={**vars(arguments), "kinds": "text, video ×2, image, rubbish, left in the middle, in turn"},
        columns=("process", "MiB at first", "after warm-up", "at the end", "highest"),
        rows=rows,
        figures=figures,
    )


if __name__ == "__main__":
    main()
