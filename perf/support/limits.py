"""The least time that a CPU needs for a request, at its measured speeds: the arithmetic of a prefill, and the memory
that every generated token reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from build.assemble.checkpoint_factory import Shape

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Machine:
    """The speeds that large matrix products and reading memory in order reach."""

    flops_per_second: float
    bytes_per_second: float


def measure_machine() -> Machine:
    """With as many threads as PyTorch has now; the best of some tries."""
    size = 2048
    matrix, many = torch.randn(size, size), torch.randn(2**26)
    return Machine(2 * size**3 / _least_seconds(lambda: matrix @ matrix), many.nbytes / _least_seconds(many.sum))


def _least_seconds(work: Callable[[], object], tries: int = 8) -> float:
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def least_prefill_seconds(shape: Shape, machine: Machine, prompts: Iterable[int]) -> float:
    """For prompts of so many tokens: two operations a weight and token, and the products of causal attention."""
    attention = 2 * shape.layers * shape.heads * shape.head_dim
    operations = sum(2 * _layer_weights(shape) * tokens + attention * tokens**2 for tokens in prompts)
    return operations / machine.flops_per_second


def least_decode_seconds(
    shape: Shape, vocabulary: int, machine: Machine, lengths: Iterable[tuple[int, int]], *, together: bool
) -> float:
    """For requests with (prompt, answer) tokens: every step reads the weights, every token what is cached before it."""
    kept = 2 * shape.layers * shape.kv_heads * shape.head_dim * FLOAT32_BYTES
    weights = (_layer_weights(shape) + vocabulary * shape.hidden) * FLOAT32_BYTES
    pairs = list(lengths)
    steps = [answer for _, answer in pairs]
    cached = sum(answer * prompt + answer**2 / 2 for prompt, answer in pairs)
    return (weights * (max(steps) if together else sum(steps)) + kept * cached) / machine.bytes_per_second


def _layer_weights(shape: Shape) -> int:
    projections = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return shape.layers * (projections + 3 * shape.hidden * shape.intermediate)
