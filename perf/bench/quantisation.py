"""`make bench-quantisation`: what weights and a KV cache of fewer bits cost in right answers, and what they take.

The demo checkpoint is asked the questions of `make accuracy` about fresh videos, served in each variant in turn. The
published formats are made from it: the same weights, rounded as each format rounds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track

from engines.checkpoint import read_model_config
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.model.registry import load_weights
from engines.pytorch.model.weights import LayerWeights
from perf.checks.accuracy import BARS, CHECKPOINT, ask_all, make_cases
from perf.support import report
from perf.support.setup import command_line, served
from tests.support.quantised import publish

CPU = torch.device("cpu")
MOST_LOST = {"8": 2.0, "4": 10.0}
"""Percentage points that a variant may lose, by its bits."""


@dataclass(frozen=True)
class Variant:
    """published: a format that the checkpoint is rewritten in; empty: as it is."""

    name: str
    bits: str
    weights: str = "auto"
    kv_cache: str = "auto"
    published: str = ""


VARIANTS = (
    Variant("as it is, float32", ""),
    Variant("KV cache bfloat16", "", kv_cache="bfloat16"),
    Variant("KV cache int8", "8", kv_cache="int8"),
    Variant("weights int8", "8", weights="int8"),
    Variant("weights int4", "4", weights="int4"),
    Variant("weights int4, KV cache int8", "4", weights="int4", kv_cache="int8"),
    Variant("published AWQ", "4", published="awq"),
    Variant("published GPTQ", "4", published="gptq"),
    Variant("published FP8", "8", published="fp8 in blocks"),
)


def layer_kib(checkpoint: Path, precision: str) -> float:
    """The layers' linear weights in memory. Embeddings and head are the same in all variants."""
    weights = load_weights(checkpoint, read_model_config(checkpoint), CPU, torch.float32, precision)
    return sum(tensor.nbytes for layer in weights.layers for tensor in _linear_tensors(layer)) / 1024


def _linear_tensors(layer: LayerWeights) -> Iterator[torch.Tensor]:
    for linear in (layer.qkv, layer.output, *vars(layer.mlp).values()):
        yield from (value for value in vars(linear).values() if isinstance(value, torch.Tensor))


def kv_bytes_per_token(checkpoint: Path, kept: str) -> int:
    dtype = torch.float32 if kept == "auto" else getattr(torch, kept)
    cache = KVCache(read_model_config(checkpoint), 1, 1, CPU, torch.float32, dtype)
    return sum(memory.nbytes for states in (*cache.keys, *cache.values) for memory in states.memory)


def main() -> None:
    parser = command_line("bench-quantisation", __doc__)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cases = make_cases(arguments.seed, arguments.videos)
    rows: list[tuple[object, ...]] = []
    figures, exact, asked = [], 0.0, 0
    for variant in track(VARIANTS, "variants"):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            checkpoint = publish(CHECKPOINT, variant.published, Path(folder))[0] if variant.published else CHECKPOINT
            settings = {"decoder.weights": variant.weights, "decoder.kv_cache_dtype": variant.kv_cache}
            with served(checkpoint, settings) as (_, client):
                right = [answer for answers in ask_all(client, cases, tuple(BARS)).values() for answer in answers]
            share, asked = 100 * sum(right) / len(right), len(right)
            exact = share if variant is VARIANTS[0] else exact
            size, per_token = layer_kib(checkpoint, variant.weights), kv_bytes_per_token(checkpoint, variant.kv_cache)
        rows.append((variant.name, f"{share:.1f} %", f"{share - exact:+.1f}", f"{size:.0f}", per_token))
        if variant.bits:
            figures.append(
                report.Figure(f"{variant.name}: lost", exact - share, "points", at_most=MOST_LOST[variant.bits])
            )
    report.finish(
        "bench-quantisation",
        workload={**vars(arguments), "checkpoint": "build/demo_checkpoint/checkpoint", "questions": asked},
        columns=("variant", "right", "points", "layers' weights, KiB", "KV cache, bytes per token"),
        rows=rows,
        figures=figures,
    )


if __name__ == "__main__":
    main()
