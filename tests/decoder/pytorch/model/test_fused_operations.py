"""The kernels between matrix products, in Triton's interpreter, against PyTorch's operations."""

from __future__ import annotations

import pytest
import torch

from engines.pytorch.model.fused_operations import GATED, FusedOperations
from engines.pytorch.model.operations import PlainOperations

CPU = torch.device("cpu")
EPS = 1e-3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
PRECISIONS = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def assert_same(fused: torch.Tensor, plain: torch.Tensor) -> None:
    assert fused.dtype == plain.dtype
    torch.testing.assert_close(fused, plain, rtol=TOLERANCE[plain.dtype], atol=TOLERANCE[plain.dtype])


@PRECISIONS
@pytest.mark.parametrize("tokens", [1, 3, 0])
@pytest.mark.parametrize("adds", [True, False])
def test_a_sum_and_its_norm(dtype: torch.dtype, tokens: int, adds: bool) -> None:
    torch.manual_seed(tokens)
    hidden, update = torch.randn(2, tokens, 80).to(dtype)
    weight = torch.randn(80).to(dtype)
    before = hidden.clone()
    fused = FusedOperations(EPS).add_norm(hidden, update if adds else None, weight)
    plain = PlainOperations(EPS, CPU).add_norm(before, update if adds else None, weight)
    for mine, expected in zip(fused, plain, strict=True):
        assert_same(mine, expected)
    assert torch.equal(hidden, before)


@PRECISIONS
def test_heads_normed_and_rotated(dtype: torch.dtype) -> None:
    """Of a tensor that also holds the values."""
    torch.manual_seed(1)
    query_key = torch.randn(4, 5, 32).to(dtype)[:, :3]
    weight, (cosines, sines) = torch.randn(3, 32).to(dtype), torch.randn(2, 4, 1, 32).to(dtype)
    fused = FusedOperations(EPS).norm_rotate(query_key, weight, (cosines, sines))
    assert_same(fused, PlainOperations(EPS, CPU).norm_rotate(query_key, weight, (cosines, sines)))


@PRECISIONS
def test_gates(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    gate_up = torch.randn(3, 2 * (GATED + 100)).to(dtype)
    assert_same(FusedOperations(EPS).gate(gate_up), PlainOperations(EPS, CPU).gate(gate_up))
