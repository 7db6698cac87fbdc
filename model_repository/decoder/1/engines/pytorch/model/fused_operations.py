"""The computations of a layer between its matrix products, each in one Triton kernel: in a decode step on a GPU,
starting a kernel and passing its numbers through memory takes longer than computing them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from engines.pytorch.model.operations import Rotation

# Numbers that a program of `_gate` computes.
GATED = 1024


class FusedOperations:
    """Implements engines.pytorch.model.operations.Operations. Computes in float32; rounds a norm before its weight, as
    transformers does. head_dim is a power of two."""

    def __init__(self, eps: float) -> None:
        self._eps = eps

    def add_norm(
        self, hidden: torch.Tensor, update: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, width = hidden.shape
        added = hidden if update is None else torch.empty_like(hidden)
        normed = torch.empty_like(hidden)
        if tokens:
            _add_norm[tokens,](
                hidden,
                hidden if update is None else update,
                weight,
                added,
                normed,
                self._eps,
                width,
                COLUMNS=triton.next_power_of_2(width),
                ADDS=update is not None,
            )
        return added, normed

    def norm_rotate(self, query_key: torch.Tensor, weight: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        tokens, heads, width = query_key.shape
        rotated = torch.empty_like(query_key, memory_format=torch.contiguous_format)
        _norm_rotate[tokens, heads](
            query_key, weight, *rotation, rotated, self._eps, query_key.stride(0), WIDTH=width, num_warps=1
        )
        return rotated

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        tokens, width = len(gate_up), gate_up.shape[1] // 2
        gated = gate_up.new_empty((tokens, width))
        _gate[tokens, triton.cdiv(width, GATED)](gate_up, gated, width, COLUMNS=GATED)
        return gated


@triton.jit
def _add_norm(
    hidden: tl.tensor,
    update: tl.tensor,
    weight: tl.tensor,
    added: tl.tensor,
    normed: tl.tensor,
    eps: tl.tensor,
    width: tl.tensor,
    COLUMNS: tl.constexpr,  # noqa: N803
    ADDS: tl.constexpr,  # noqa: N803
) -> None:
    """One token."""
    column = tl.arange(0, COLUMNS)
    inside = column < width
    place = tl.program_id(0).to(tl.int64) * width + column
    dtype = hidden.dtype.element_ty
    state = tl.load(hidden + place, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        state += tl.load(update + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(added + place, state.to(dtype), mask=inside)
        state = state.to(dtype).to(tl.float32)
    state *= tl.rsqrt(tl.sum(state * state, axis=0) / width + eps)
    weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + place, (state.to(dtype).to(tl.float32) * weights).to(dtype), mask=inside)


@triton.jit
def _norm_rotate(
    query_key: tl.tensor,
    weight: tl.tensor,
    cosines: tl.tensor,
    sines: tl.tensor,
    rotated: tl.tensor,
    eps: tl.tensor,
    stride: tl.tensor,
    WIDTH: tl.constexpr,  # noqa: N803
) -> None:
    """One head of one token. The two halves of a head are the pairs' first and second values."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, WIDTH)
    other = (column + WIDTH // 2) % WIDTH
    states, weights = query_key + token * stride + head * WIDTH, weight + head * WIDTH
    dtype = query_key.dtype.element_ty
    state, partner = tl.load(states + column).to(tl.float32), tl.load(states + other).to(tl.float32)
    factor = tl.rsqrt(tl.sum(state * state, axis=0) / WIDTH + eps)
    state = (state * factor).to(dtype).to(tl.float32) * tl.load(weights + column).to(tl.float32)
    partner = (partner * factor).to(dtype).to(tl.float32) * tl.load(weights + other).to(tl.float32)
    turned = tl.where(column < WIDTH // 2, -partner, partner)
    angle = token * WIDTH + column
    result = state * tl.load(cosines + angle).to(tl.float32) + turned * tl.load(sines + angle).to(tl.float32)
    tl.store(rotated + (token * tl.num_programs(1) + head) * WIDTH + column, result.to(dtype))


@triton.jit
def _gate(gate_up: tl.tensor, gated: tl.tensor, width: tl.tensor, COLUMNS: tl.constexpr) -> None:  # noqa: N803
    """Part of one token."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    gate = tl.load(gate_up + token * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * up
    tl.store(gated + token * width + column, result.to(gated.dtype.element_ty), mask=inside)
