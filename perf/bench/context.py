"""`make bench-context`: one request of 262,144 tokens through the server; the decoder's memory over time, as a plot.

The model is a random one, small enough that a CPU gets through the quarter of a million tokens; what a token takes in
the KV cache is a matter of shape alone. The capacity formula is the planner's: what the process had when it was asked
for little, and on top the KV cache, what else is noted of tokens, and the step's activations.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import matplotlib

from build.assemble.checkpoint_factory import Shape
from build.gpu.planner.memory import request_parts, step_activation_bytes
from build.gpu.planner.models import find_model
from build.gpu.planner.profiles import MIB, find_profile
from perf.support import report
from perf.support.memory import own_mib
from perf.support.setup import command_line, random_checkpoint, served
from qwen3_vl_client import Timeouts

matplotlib.use("svg")
from matplotlib import pyplot

SHAPE = Shape(layers=3, heads=2, kv_heads=2, head_dim=32, hidden=64, intermediate=128)
STEP_TOKENS = 1024
ANSWER_TOKENS = 16


class Watch:
    """The memory of a process that is its own, in MiB, twice a second: (seconds, MiB)."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.samples: list[tuple[float, float]] = []

    def now(self) -> float:
        return own_mib(self._pid)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._ended.wait(0.5):
            self.samples.append((time.monotonic() - self._began, self.now()))


def draw(samples: list[tuple[float, float]], before: float, formula: float) -> Path:
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.plot(*zip(*samples, strict=True), label="decoder")
    axes.axhline(before, linestyle=":", color="gray", label="before the request")
    axes.axhline(formula, linestyle="--", color="gray", label="capacity formula")
    axes.set(xlabel="seconds", ylabel="MiB of its own", ylim=(0, None), title="One request of 262,144 tokens")
    axes.legend(loc="lower right")
    path = report.RESULTS / "bench-context.svg"
    figure.savefig(path)
    return path


def main() -> None:
    parser = command_line("bench-context", __doc__)
    parser.add_argument("--tokens", type=int, default=262_144, help="prompt and answer")
    arguments = parser.parse_args()
    with random_checkpoint(SHAPE) as (_, checkpoint):
        profile, model = replace(find_profile("cpu"), max_step_tokens=STEP_TOKENS), find_model(str(checkpoint))
        parts = {part.name: part.bytes for part in request_parts(profile, model, "fp32", arguments.tokens, 1)}
        cache, noted = parts["KV cache"], parts["what is noted of tokens"]
        activations = step_activation_bytes(profile, model)
        settings = {
            "decoder.kv_cache_tokens": str(arguments.tokens),
            "decoder.context_length": str(arguments.tokens),
            "decoder.max_step_tokens": str(STEP_TOKENS),
            "video_preprocess.context_length": str(arguments.tokens),
        }
        timeouts = Timeouts(silence=600, total=7200)
        with served(checkpoint, settings, timeouts) as (server, client):
            own = client.ask(question="a a", max_tokens=1).usage.prompt_tokens - 2
            # A step of its full width, so that what libraries set up once is there before.
            client.ask(question=" a" * 2 * STEP_TOKENS, max_tokens=ANSWER_TOKENS, ignore_eos=True)
            with Watch(server.pids()["decoder"]) as watch:
                before, began = watch.now(), time.monotonic()
                words = arguments.tokens - ANSWER_TOKENS - own
                answer = client.ask(question=" a" * words, max_tokens=ANSWER_TOKENS, ignore_eos=True)
                seconds = time.monotonic() - began
    tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens
    peak = max(mib for _, mib in watch.samples)
    formula = before + (cache + noted + activations) / MIB
    plot = draw(watch.samples, before, formula)
    report.finish(
        "bench-context",
        workload={**vars(arguments), "shape": vars(SHAPE), "answer_tokens": ANSWER_TOKENS, "plot": plot.name},
        columns=("tokens", "seconds", "MiB before", "peak", "growth", "by formula: KV cache", "notes", "activations"),
        rows=[(tokens, seconds, before, peak, peak - before, cache / MIB, noted / MIB, activations / MIB)],
        figures=[
            report.Figure("tokens of the request", tokens, "tokens", at_least=arguments.tokens),
            report.Figure("peak off the capacity formula", 100 * abs(peak / formula - 1), "%", at_most=10),
        ],
    )


if __name__ == "__main__":
    main()
