"""The feed-forward part of a dense model's layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.checkpoint import ModelConfig
from engines.pytorch.model.linear import Linear
from engines.pytorch.model.operations import Operations
from engines.pytorch.model.tensors import LayerTensors


@dataclass(frozen=True)
class DenseMlp:
    """Implements engines.pytorch.model.weights.Mlp."""

    gate_up: Linear
    """Gate, then up."""
    down: Linear

    @classmethod
    def read(cls, tensors: LayerTensors, config: ModelConfig) -> DenseMlp:
        hidden, inner = config.hidden_size, config.intermediate_size
        return cls(
            gate_up=tensors.linear(hidden, {"mlp.gate_proj": inner, "mlp.up_proj": inner}),
            down=tensors.linear(inner, {"mlp.down_proj": hidden}),
        )

    def __call__(self, hidden: torch.Tensor, operations: Operations) -> torch.Tensor:
        return self.down(operations.gate(self.gate_up(hidden)))
