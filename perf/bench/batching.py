"""`make bench-batching`: eight requests at once through the server against transformers.generate, one after the other.

The same checkpoint, videos, questions and greedy tokens on the same machine. Our time holds everything: upload, video
decoding, sampling, encoding, prefill, generation. The reference's holds `generate` alone, with its inputs prepared
before.
"""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import torch

from perf.checks.parity.decoded import sampled_video
from perf.support import report
from perf.support.setup import DEMO_SHAPE, command_line, random_checkpoint, served
from qwen3_vl_client import Answer, Client
from tests.support import reference
from tests.support.media import make_video


def make_videos(folder: Path, count: int) -> list[bytes]:
    videos = []
    for number in range(count):
        path = folder / f"{number}.mp4"
        make_video(path, width=128, height=96, frames=40 + 10 * number, fps=10, seed=number)
        videos.append(path.read_bytes())
    return videos


def ask_all(client: Client, videos: list[bytes], tokens: int, *, together: bool) -> tuple[float, list[Answer]]:
    """Seconds and answers."""
    answers: dict[int, Answer] = {}

    def ask(number: int) -> None:
        answers[number] = client.ask(
            videos[number],
            "What happens, and when?",
            sampler="uniform",  # the reference's
            temperature=0.0,
            max_tokens=tokens,
            ignore_eos=True,
            return_token_ids=True,
        )

    started = time.perf_counter()
    if together:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(videos))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        for number in range(len(videos)):
            ask(number)
    return time.perf_counter() - started, [answers[number] for number in range(len(videos))]


def generate_all(
    checkpoint: Path, prompts: list[reference.ReferencePrompt], tokens: int
) -> tuple[float, list[list[int]]]:
    """Seconds and token ids of transformers.generate, one prompt after the other, with the cores to itself."""
    started = time.perf_counter()
    generated = [reference.generate(checkpoint, prompt, tokens) for prompt in prompts]
    return time.perf_counter() - started, generated


def main() -> None:
    parser = command_line("bench-batching", __doc__)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="the median of them is reported")
    arguments = parser.parse_args()

    with random_checkpoint(DEMO_SHAPE) as (folder, checkpoint):
        videos = make_videos(folder, arguments.requests)
        processor = reference.load_processor(checkpoint)
        content = [{"type": "video", "video": ""}, {"type": "text", "text": "What happens, and when?"}]
        prompts = [
            reference.process(checkpoint, [{"role": "user", "content": content}], [sampled_video(video, {}, processor)])
            for video in videos
        ]
        torch.set_num_threads(2)
        times: dict[str, list[float]] = {"together": [], "alone": [], "reference": []}
        with served(checkpoint) as (_, client):
            ask_all(client, videos, 4, together=True)
            generate_all(checkpoint, prompts[:1], 4)
            for _ in range(arguments.rounds):
                seconds, answers = ask_all(client, videos, arguments.tokens, together=True)
                times["together"].append(seconds)
                times["alone"].append(ask_all(client, videos, arguments.tokens, together=False)[0])
                seconds, generated = generate_all(checkpoint, prompts, arguments.tokens)
                times["reference"].append(seconds)
        same = sum(list(answer.usage.token_ids or ()) == ids for answer, ids in zip(answers, generated, strict=True))

    total = arguments.requests * arguments.tokens
    rate = {name: total / statistics.median(seconds) for name, seconds in times.items()}
    report.finish(
        "bench-batching",
        workload={**vars(arguments), "shape": str(DEMO_SHAPE), "prompt_tokens": [len(p.token_ids) for p in prompts]},
        columns=("what", "seconds", "tokens per second"),
        rows=[
            (f"served, {arguments.requests} at once", statistics.median(times["together"]), rate["together"]),
            ("served, one after the other", statistics.median(times["alone"]), rate["alone"]),
            ("transformers.generate, one after the other", statistics.median(times["reference"]), rate["reference"]),
        ],
        figures=[
            report.Figure(
                "answers with identical tokens", same, f"of {arguments.requests}", at_least=arguments.requests
            ),
            report.Figure("at once / transformers.generate", rate["together"] / rate["reference"], "×", at_least=2),
        ],
    )


if __name__ == "__main__":
    main()
