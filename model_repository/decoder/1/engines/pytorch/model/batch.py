"""The model's input: the tokens of all sequences in a step, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.pytorch.cache.block_tables import TableContext
from engines.pytorch.cache.placement import Context


@dataclass(frozen=True)
class Span:
    """One sequence's part of the batch."""

    begin: int
    end: int
    context: Context
    """All its tokens see this. A single token finds itself there, several find themselves in the batch."""


@dataclass(frozen=True)
class Batch:
    """Flat tensors, decode steps by table first."""

    token_ids: torch.Tensor
    """[tokens]"""
    positions: torch.Tensor
    """[3, tokens]"""
    slots: torch.Tensor
    """[tokens], where each token's key and value go in the flat cache."""
    decoding: TableContext | None
    """The contexts of the first tokens, one per sequence, in block tables; None where there are none."""
    spans: tuple[Span, ...]
    """One per other sequence, in the order of the work."""
    visual: torch.Tensor
    """[visual tokens], which tokens of the batch they are."""
    rows: torch.Tensor
    """[visual tokens, hidden * (1 + levels)]"""
    yielding: torch.Tensor
    """[sequences that yield a token], the batch's tokens whose logits are wanted."""
