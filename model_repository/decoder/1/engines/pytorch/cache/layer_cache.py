"""Keys or values of one layer as the KV cache keeps them: in the computed precision, in a smaller one, or in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

Place = slice | torch.Tensor
"""A run of slots, or slots one by one."""

# Reading in another precision copies: a longer context goes in parts of this many tokens.
_MAX_COPIED_TOKENS = 65_536


class LayerCache(Protocol):
    """The flat cache of one layer: [kv heads, slots, head_dim], because attention reads a head's tokens one after the
    other."""

    @property
    def memory(self) -> tuple[torch.Tensor, ...]:
        """The tensors behind it, slots first."""

    @property
    def most_tokens(self) -> int | None:
        """How many tokens may be read at once; None where they are read in place."""

    def write(self, slots: torch.Tensor, states: torch.Tensor) -> None:
        """Keeps `states` [tokens, kv heads, head_dim] at `slots` [tokens]."""

    def read(self, place: Place) -> torch.Tensor:
        """[kv heads, tokens, head_dim] in the computed precision."""


@dataclass(frozen=True)
class FloatLayerCache:
    """In a floating type."""

    values: torch.Tensor
    """[kv heads, slots, head_dim]"""
    dtype: torch.dtype
    """The computed precision."""

    @property
    def memory(self) -> tuple[torch.Tensor, ...]:
        return (self.values,)

    @property
    def most_tokens(self) -> int | None:
        return None if self.values.dtype == self.dtype else _MAX_COPIED_TOKENS

    def write(self, slots: torch.Tensor, states: torch.Tensor) -> None:
        self.values.index_copy_(1, slots, states.transpose(0, 1).to(self.values.dtype))

    def read(self, place: Place) -> torch.Tensor:
        return self.values[:, place].to(self.dtype)


@dataclass(frozen=True)
class Int8LayerCache:
    """A scale per token and head: blocks fill token by token, and a scale for a whole block would have all its tokens
    rounded again whenever a larger value comes."""

    values: torch.Tensor
    """int8 [kv heads, slots, head_dim]"""
    scales: torch.Tensor
    """float16 [kv heads, slots, 1]"""
    dtype: torch.dtype
    """The computed precision."""

    @property
    def memory(self) -> tuple[torch.Tensor, ...]:
        return self.values, self.scales

    @property
    def most_tokens(self) -> int | None:
        return _MAX_COPIED_TOKENS

    def write(self, slots: torch.Tensor, states: torch.Tensor) -> None:
        # The smallest scale is float16's smallest ordinary number.
        scales = (states.abs().amax(dim=2, keepdim=True) / 127).clamp(min=6.2e-5).to(torch.float16)
        values = (states / scales.to(states.dtype)).round().clamp(-127, 127)
        self.values.index_copy_(1, slots, values.to(torch.int8).transpose(0, 1))
        self.scales.index_copy_(1, slots, scales.transpose(0, 1))

    def read(self, place: Place) -> torch.Tensor:
        return self.values[:, place].to(self.dtype) * self.scales[:, place].to(self.dtype)
