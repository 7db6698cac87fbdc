"""`make bench-gpu`: the PyTorch engine on a GPU at the published shapes, against what that very card can do.

Weights are random: speed does not depend on their values. What bounds a decode step is reading weights and cache from
memory, what bounds a prefill is multiplying matrices: both limits are measured on the card first, and each time is
given with its share of the limit. Without a GPU, `--shape tiny` runs all of it on the CPU to show that it works; then
nothing is written, because no GPU figure exists until this has run on one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from build.assemble.checkpoint_factory import make_checkpoint
from build.gpu.planner.memory import fixed_parts, request_parts
from build.gpu.planner.models import find_model, published_sizes
from build.gpu.planner.profiles import find_profile
from engines.checkpoint import ModelConfig
from engines.protocol import Event, PromptPiece, Request, Tokens
from engines.pytorch.engine import PyTorchEngine
from engines.pytorch.factory import build_engine
from engines.pytorch.model.dense_mlp import DenseMlp
from engines.pytorch.model.linear import DenseLinear, Grouped4Bit, Int4Linear, Linear
from engines.pytorch.model.registry import build_model
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.model.weights import LayerWeights, ModelWeights
from perf.support import report
from tests.support.harness import greedy, make_settings

GIB = 2**30
CARD_GIB = 24
CONTEXT = 262_144
GROUP = 128
ENGINE_PARTS = (
    "decoder weights",
    "decoder activations",
    "workspaces and CUDA graphs",
    "KV cache",
    "keys and values read back",
)
TINY = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 256,
    "vocab_size": 512,
    "max_position_embeddings": CONTEXT,
}


@dataclass(frozen=True)
class Scale:
    """How much is measured. prefills, context: tokens. answer: tokens of each answer, whose steps are timed."""

    batches: tuple[int, ...] = (1, 8, 32)
    decode_context: int = 1024
    answer: int = 128
    prefills: tuple[int, ...] = (8192, 65_536, CONTEXT)
    context: int = CONTEXT
    step_tokens: int = 8192
    matrix: int = 8192
    copied_bytes: int = 4 * GIB


SMALL = Scale(
    batches=(1, 2), decode_context=32, answer=4, prefills=(64, 128), context=256, step_tokens=64, matrix=256,
    copied_bytes=2**24,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The device's speeds, as measured: bytes per second read and written, multiplications and additions per second."""

    bandwidth: float
    matrix: float


def shape_of(name: str) -> ModelConfig:
    """A published size (`4B`), or `tiny`."""
    entry = {"text": TINY, "tie_word_embeddings": True} if name == "tiny" else published_sizes()[name]
    text = entry["text"]
    half = text["head_dim"] // 2
    spatial = half * 20 // 64
    return ModelConfig(
        model_type="qwen3_vl",
        **text,
        rms_norm_eps=1e-6,
        rope_theta=5_000_000.0,
        mrope_section=(half - 2 * spatial, spatial, spatial),
        tie_word_embeddings=entry["tie_word_embeddings"],
        dtype="bfloat16",
        deepstack_levels=3,
        visual_token_ids=(-1, -1),
    )


def random_model(config: ModelConfig, device: torch.device, *, four_bits: bool) -> TextModel:
    """A decoder of this shape in bfloat16, its layers' linear weights in 4 bits if wanted."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.02

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, device=device, dtype=torch.bfloat16)

    def linear(outputs: int, inputs: int) -> Linear:
        weight = normal(outputs, inputs)
        return Int4Linear.pack(Grouped4Bit.quantise(weight, GROUP)) if four_bits else DenseLinear(weight)

    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    layers = tuple(
        LayerWeights(
            input_norm=ones(hidden),
            qkv=linear((heads + 2 * kv_heads) * width, hidden),
            query_key_norm=ones(heads + kv_heads, width),
            output=linear(hidden, heads * width),
            post_attention_norm=ones(hidden),
            mlp=DenseMlp(gate_up=linear(2 * inner, hidden), down=linear(hidden, inner)),
        )
        for _ in range(config.num_hidden_layers)
    )
    embeddings = normal(config.vocab_size, hidden)
    head = embeddings if config.tie_word_embeddings else normal(config.vocab_size, hidden)
    return build_model(config, ModelWeights(embeddings, layers, ones(hidden), head), by_table=device.type == "cuda")


class Bench:
    """One model on one device, and engines whose steps this computes itself."""

    def __init__(self, config: ModelConfig, device: torch.device, scale: Scale, *, four_bits: bool = False) -> None:
        self.config, self.device, self.scale = config, device, scale
        self._model = random_model(config, device, four_bits=four_bits)
        # For its generation_config.json and tokenizer; nothing is generated that would depend on them.
        self._checkpoint = tempfile.TemporaryDirectory(prefix="bench-")
        make_checkpoint(Path(self._checkpoint.name))

    def run(self, *, batch: int, prompt: int, answer: int, kv_cache: str = "auto") -> tuple[float, float]:
        """`batch` requests at once: (seconds until each has its first token, seconds per step after it)."""
        tokens = batch * (-(-(prompt + answer) // 16) * 16)
        settings = make_settings(
            Path(self._checkpoint.name), kv_cache_tokens=tokens, kv_cache_dtype=kv_cache, prefix_cache=False,
            max_step_tokens=self.scale.step_tokens, max_batch=batch,
        )  # fmt: skip
        generated = 0

        def listen(_: str, event: Event) -> None:
            nonlocal generated
            generated += len(event.ids) if isinstance(event, Tokens) else 0

        on_gpu = self.device.type == "cuda"
        engine = build_engine(
            settings, self.config, self._model, listen, self.device, torch.bfloat16, lag=int(on_gpu), by_table=on_gpu
        )
        for number in range(batch):
            self._ask(engine, str(number), prompt, answer)
        started = self._now()
        while generated < batch:
            engine.step()
        first, at_first = self._now(), generated
        while generated < batch * answer:
            engine.step()
        ended = self._now()
        steps = (batch * answer - at_first) / batch
        return first - started, (ended - first) / steps

    def _ask(self, engine: PyTorchEngine, session: str, prompt: int, answer: int) -> None:
        token_ids = np.full(prompt, 1, np.int32)
        positions = np.tile(np.arange(prompt, dtype=np.int32), (3, 1))
        rows = torch.zeros(0, self.config.row_width)
        engine.open(session, Request(token_ids, positions, (), prompt, greedy(answer)))
        engine.feed(session, PromptPiece(0, token_ids, positions, rows, last=True))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def seconds_of(action: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """The time of one repetition, after one that does not count."""
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


def measure_limits(device: torch.device, scale: Scale) -> Limits:
    values = torch.zeros(scale.copied_bytes // 2, dtype=torch.bfloat16, device=device)
    copying = seconds_of(values.clone, device)
    matrix = torch.randn(scale.matrix, scale.matrix, dtype=torch.bfloat16, device=device)
    multiplying = seconds_of(lambda: matrix @ matrix, device)
    return Limits(2 * scale.copied_bytes / copying, 2 * scale.matrix**3 / multiplying)


def linear_parameters(config: ModelConfig) -> int:
    """The weights of the layers."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    per_layer = config.hidden_size * (heads * config.head_dim + 3 * config.intermediate_size)
    return config.num_hidden_layers * per_layer


def decode_bytes(config: ModelConfig, batch: int, context: int) -> int:
    """The bytes that a decode step in bfloat16 must read: all weights once, and every request's keys and values."""
    kv = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return 2 * (linear_parameters(config) + config.vocab_size * config.hidden_size + batch * context * kv)


def prefill_operations(config: ModelConfig, tokens: int) -> int:
    """Multiplications and additions: the linear layers, and the causal half of the attention."""
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * tokens**2
    return 2 * linear_parameters(config) * tokens + attention


Row = tuple[str, str, float, str, float | None]


def measure_shape(
    name: str, device: torch.device, scale: Scale, limits: Limits
) -> tuple[list[Row], list[report.Figure]]:
    """Decode steps and prefills of one shape: rows (shape, what, milliseconds, of which limit, share in %)."""
    config, rows, figures = shape_of(name), [], []
    bench = Bench(config, device, scale)
    for batch in scale.batches:
        _, step = bench.run(batch=batch, prompt=scale.decode_context, answer=scale.answer)
        moved = decode_bytes(config, batch, scale.decode_context + scale.answer // 2)
        share = 100 * moved / step / limits.bandwidth
        rows.append((name, f"decode step, batch {batch}", 1e3 * step, "memory bandwidth", share))
        if (name, batch) == ("4B", 1):
            figures.append(report.Figure("4B, batch 1: share of the bandwidth", share, "%", at_least=75))
    for tokens in scale.prefills:
        seconds, _ = bench.run(batch=1, prompt=tokens - 2, answer=2)
        share = 100 * prefill_operations(config, tokens) / seconds / limits.matrix
        rows.append((name, f"prefill, {tokens} tokens", 1e3 * seconds, "matrix limit", share))
        figures.append(report.Figure(f"{name}, {tokens} tokens: share of the matrix limit", share, "%", at_least=50))
    return rows, figures


def measure_memory(name: str, device: torch.device, scale: Scale) -> tuple[Row, float]:
    """One request of the longest context with weights of 4 bits and a cache of 8: a row, and the peak in GiB."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(
            CARD_GIB * GIB / torch.cuda.get_device_properties(device).total_memory
        )
        torch.cuda.reset_peak_memory_stats()
    bench = Bench(shape_of(name), device, replace(scale, step_tokens=min(scale.step_tokens, 2048)), four_bits=True)
    seconds, _ = bench.run(batch=1, prompt=scale.context - 4, answer=4, kv_cache="int8")
    peak = torch.cuda.max_memory_reserved() / GIB if device.type == "cuda" else 0.0
    return (name, f"prefill, {scale.context} tokens, 4-bit weights, 8-bit cache", 1e3 * seconds, "", None), peak


def planned_bytes(name: str, context: int) -> int:
    """The memory that the planner counts for the engine alone: neither the vision tower nor the processes around it."""
    profile, model = find_profile("rtx4090d").with_engine("pytorch"), find_model(name)
    parts = fixed_parts(profile, model, "int4") + request_parts(profile, model, "int8", context, 1)
    return sum(part.bytes for part in parts if part.name in ENGINE_PARTS)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-gpu", description=__doc__)
    parser.add_argument("--shape", nargs="+", default=["2B", "4B", "8B"], choices=["tiny", *published_sizes()])
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tiny = arguments.shape == ["tiny"]
    if device.type == "cpu" and not tiny:
        sys.exit("no GPU: PyTorch sees none, and no GPU figure exists until this runs on one; --shape tiny tries it")
    scale = SMALL if tiny else Scale()
    limits = measure_limits(device, scale)
    rows: list[Row] = []
    figures: list[report.Figure] = []
    for name in arguments.shape:
        measured, bars = measure_shape(name, device, scale, limits)
        rows += measured
        figures += bars
    row, peak = measure_memory("tiny" if tiny else "4B", device, scale)
    rows.append(row)
    figures.append(report.Figure(f"4B, {CONTEXT} tokens, capped at {CARD_GIB} GiB: peak", peak, "GiB", at_most=23))
    allowed = planned_bytes("4B", scale.context) / GIB
    figures.append(report.Figure("the same, of what the planner allows for it", 100 * peak / allowed, "%", at_most=100))
    columns = ("shape", "what", "ms", "limit", "share of it, %")
    if tiny:
        table = Table(*columns, title="gpu.engine, tried on a tiny shape")
        for row in rows:
            table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell or "") for cell in row))
        Console(width=120).print(table)
        print("This only shows that the measurement works. No GPU figure exists until it runs on a GPU.")
        return
    report.finish(
        "bench-gpu",
        workload={**vars(scale), "bandwidth_bytes_per_second": limits.bandwidth, "matrix_flops": limits.matrix},
        columns=columns,
        rows=[tuple("" if cell is None else cell for cell in row) for row in rows],
        figures=figures,
    )


if __name__ == "__main__":
    main()
