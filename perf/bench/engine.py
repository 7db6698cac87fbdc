"""`make bench-engine`: the PyTorch engine against transformers.generate on a CPU.

The same random weights, prompts and greedy answers of the same lengths, in float32. Prompts of 200 to 8,000 tokens and
answers of 16 to 512 are mixed; eight lengths of each, geometric, paired at random. The sides take turns, each in a
process of its own: in one, the threads that OpenMP starts for both would be more than there are cores, and sleep after
every operation. transformers has the cache and the number of threads with which it is faster; it is called one request
after the other, and in batches of neighbouring lengths (padded to the longest, generated to the longest answer; only
wanted tokens count). Beside each is what this machine's arithmetic and memory allow at most (`limits.py`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3VLForConditionalGeneration

from engines.create import create_engine
from engines.protocol import Event, PromptPiece, Request
from perf.support import report
from perf.support.limits import least_decode_seconds, least_prefill_seconds, measure_machine
from perf.support.setup import DEMO_SHAPE, command_line, random_checkpoint
from tests.support.harness import Answer, greedy, make_settings

LENGTHS = 8
PROMPT_TOKENS = (200, 8000)
ANSWER_TOKENS = (16, 512)
BATCHES = (2, 4, 8)
"""The sizes of transformers' batches; the best counts."""
WORDS = range(60, 250)


@dataclass(frozen=True)
class Asked:
    token_ids: np.ndarray
    """int32 [tokens]"""
    answer_tokens: int


def mixed(requests: int, seed: int) -> list[Asked]:
    """Each of the eight lengths as often as the others."""
    draw, words = random.Random(seed), np.random.default_rng(seed)
    prompts, answers = ([round(v) for v in np.geomspace(*bounds, LENGTHS)] for bounds in (PROMPT_TOKENS, ANSWER_TOKENS))
    draw.shuffle(answers)
    pairs = list(zip(prompts, answers, strict=True)) * -(-requests // LENGTHS)
    return [
        Asked(words.integers(WORDS.start, WORDS.stop, prompt).astype(np.int32), answer)
        for prompt, answer in draw.sample(pairs[:requests], requests)
    ]


class Ours:
    """The engine as the server runs it, without the server."""

    def __init__(self, checkpoint: Path, threads: int, cache_tokens: int) -> None:
        self._answers: dict[str, Answer] = {}
        settings = make_settings(checkpoint, threads=threads, kv_cache_tokens=cache_tokens, prefix_cache=False)
        self._engine = create_engine(settings, self._hear)

    def _hear(self, session: str, event: Event) -> None:
        self._answers[session](event)

    def together(self, asked: Sequence[Asked]) -> float:
        """Seconds for all at once."""
        started = time.perf_counter()
        for number, one in enumerate(asked):
            tokens = len(one.token_ids)
            positions = np.tile(np.arange(tokens, dtype=np.int32), (3, 1))
            session, rows = str(number), torch.zeros(0, DEMO_SHAPE.hidden * (1 + len(DEMO_SHAPE.deepstack_levels)))
            self._answers[session] = Answer()
            self._engine.open(session, Request(one.token_ids, positions, (), tokens, greedy(one.answer_tokens)))
            self._engine.feed(session, PromptPiece(0, one.token_ids, positions, rows, last=True))
        for number, one in enumerate(asked):
            answer = self._answers[str(number)]
            answer.over.wait()
            assert len(answer.ids) == one.answer_tokens, answer.error
        return time.perf_counter() - started

    def one_by_one(self, asked: Sequence[Asked]) -> float:
        return sum(self.together([one]) for one in asked)

    def close(self) -> None:
        self._engine.close()


class Theirs:
    """transformers.generate with scaled_dot_product_attention."""

    def __init__(self, checkpoint: Path) -> None:
        self._model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._options: dict[str, Any] = {}

    def vocabulary(self) -> int:
        vocabulary: int = self._model.config.text_config.vocab_size
        return vocabulary

    def choose(self, threads: Sequence[int], probe: Sequence[Asked]) -> dict[str, Any]:
        """Takes what is faster from now on: a cache that grows or a static one, and how many threads."""
        caches: list[dict[str, Any]] = [{}, {"cache_implementation": "static", "disable_compile": True}]
        seconds: dict[tuple[int, int], float] = {}
        for pair in product(range(len(caches)), threads):
            self._options = caches[pair[0]]
            torch.set_num_threads(pair[1])
            self.one_by_one(probe[:1])
            seconds[pair] = self.one_by_one(probe)
        cache, best = min(seconds, key=lambda pair: seconds[pair])
        self._options = caches[cache]
        torch.set_num_threads(best)
        return {**self._options, "threads": best}

    @torch.inference_mode()
    def _batch(self, asked: Sequence[Asked], **options: Any) -> float:
        """Seconds for one call."""
        longest = max(len(one.token_ids) for one in asked)
        tokens = max(one.answer_tokens for one in asked)
        ids = torch.zeros(len(asked), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(asked):
            ids[row, longest - len(one.token_ids) :] = torch.from_numpy(one.token_ids)
            mask[row, longest - len(one.token_ids) :] = 1
        started = time.perf_counter()
        self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            eos_token_id=None,
            **options,
        )
        return time.perf_counter() - started

    def one_by_one(self, asked: Sequence[Asked]) -> float:
        return sum(self._batch([one], **self._options) for one in asked)

    def batched(self, asked: Sequence[Asked], size: int) -> float:
        """Neighbours in length of prompt and answer together waste the least."""
        ordered = sorted(asked, key=lambda one: len(one.token_ids) + one.answer_tokens)
        return sum(self._batch(ordered[begin : begin + size]) for begin in range(0, len(ordered), size))


class Apart:
    """An object that lives in a process of its own: called with the name of a method and its arguments."""

    def __init__(self, kind: type, *arguments: Any) -> None:
        self._process = ProcessPoolExecutor(1, get_context("spawn"), initializer=_make, initargs=(kind, *arguments))

    def __call__(self, method: str, *arguments: Any) -> Any:
        return self._process.submit(_call, method, arguments).result()

    def end(self) -> None:
        self._process.shutdown()


_apart: Any = None


def _make(kind: type, *arguments: Any) -> None:
    global _apart
    _apart = kind(*arguments)


def _call(method: str, arguments: Sequence[Any]) -> Any:
    return getattr(_apart, method)(*arguments)


@contextmanager
def sides(threads: int, cache_tokens: int) -> Iterator[tuple[Apart, Apart]]:
    with random_checkpoint(DEMO_SHAPE) as (_, checkpoint):
        ours, theirs = Apart(Ours, checkpoint, threads, cache_tokens), Apart(Theirs, checkpoint)
        try:
            yield ours, theirs
            ours("close")
        finally:
            ours.end()
            theirs.end()


def main() -> None:
    parser = command_line("bench-engine", __doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of ours")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    eight, many = mixed(8, arguments.seed), mixed(32, arguments.seed)
    typical = [Asked(one.token_ids, 64) for one in sorted(eight, key=lambda one: len(one.token_ids))[3:5]]
    prompts = [Asked(one.token_ids, 1) for one in eight]
    tokens = {len(asked): sum(one.answer_tokens for one in asked) for asked in (eight, many)}
    prompt_tokens = sum(len(one.token_ids) for one in eight)

    with sides(arguments.threads, sum(len(o.token_ids) + o.answer_tokens + 16 for o in many)) as (ours, theirs):
        ours("one_by_one", typical)
        chosen = theirs("choose", sorted({1, arguments.threads}), typical)
        prefill = prompt_tokens / ours("one_by_one", prompts), prompt_tokens / theirs("one_by_one", prompts)
        alone = tokens[8] / ours("one_by_one", eight), tokens[8] / theirs("one_by_one", eight)
        batched = {size: tokens[8] / theirs("batched", eight, size) for size in BATCHES}
        at_once = {len(asked): tokens[len(asked)] / ours("together", asked) for asked in (eight, many)}
        vocabulary = theirs("vocabulary")
    machine = measure_machine()
    reading = least_prefill_seconds(DEMO_SHAPE, machine, [len(one.token_ids) for one in eight])

    def limit(asked: Sequence[Asked], *, together: bool) -> float:
        lengths = [(len(one.token_ids), one.answer_tokens) for one in asked]
        writing = least_decode_seconds(DEMO_SHAPE, vocabulary, machine, lengths, together=together)
        return tokens[len(asked)] / (reading * len(asked) / len(eight) + writing)

    best = max(batched, key=lambda size: batched[size])
    report.finish(
        "bench-engine",
        workload={
            **vars(arguments),
            "shape": str(DEMO_SHAPE),
            "dtype": "float32",
            "lengths": [[len(one.token_ids), one.answer_tokens] for one in eight],
            "transformers": {"attention": "sdpa", **chosen},
            "machine": vars(machine),
        },
        columns=("tokens per second", "ours", "transformers", "the machine's limit"),
        rows=[
            ("prompts", *prefill, prompt_tokens / reading),
            ("answers, one after the other", *alone, limit(eight, together=False)),
            (f"answers, 8 at once (transformers: {best})", at_once[8], batched[best], limit(eight, together=True)),
            ("answers, 32 at once", at_once[32], "", limit(many, together=True)),
            *((f"answers, batches of {size}", "", rate, "") for size, rate in batched.items() if size != best),
        ],
        figures=[
            report.Figure("prompts / transformers", prefill[0] / prefill[1], "×", at_least=1),
            report.Figure("one stream / transformers", alone[0] / alone[1], "×", at_least=1.5),
            report.Figure("8 at once / transformers one by one", at_once[8] / alone[1], "×", at_least=5),
            report.Figure("32 at once / transformers one by one", at_once[32] / alone[1], "×", at_least=10),
            report.Figure("32 at once / transformers' best batch", at_once[32] / batched[best], "×", at_least=1.5),
        ],
    )


if __name__ == "__main__":
    main()
