"""The computations of a layer between its matrix products, in PyTorch's operations."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from engines.pytorch.model.rotary import rotate

Rotation = tuple[torch.Tensor, torch.Tensor]


class Operations(Protocol):
    """Norms are root mean square (Zhang and Sennrich 2019, arXiv 1910.07467), over the last dimension."""

    def add_norm(
        self, hidden: torch.Tensor, update: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden + update, and its norm times weight. hidden, update: [tokens, width]; weight: [width]"""

    def norm_rotate(self, query_key: torch.Tensor, weight: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """Each head's norm times weight, rotated. query_key: [tokens, heads, head_dim]; weight: [heads, head_dim]"""

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """SiLU of the first half times the second. gate_up: [tokens, 2 * width]"""


class PlainOperations:
    """PyTorch's own operations, on any device."""

    def __init__(self, eps: float, device: torch.device) -> None:
        self._eps = eps
        self._root_eps = torch.tensor(eps, device=device).sqrt()

    def add_norm(
        self, hidden: torch.Tensor, update: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if update is not None:
            hidden = hidden + update
        return hidden, self._norm(hidden, weight)

    def norm_rotate(self, query_key: torch.Tensor, weight: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        return rotate(self._norm(query_key) * weight, *rotation)

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def _norm(self, states: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        width = states.shape[-1]
        if states.device.type == "cpu" and states.dtype == torch.float32:
            # PyTorch composes the other way on a CPU, of three times as many operations: a tenth of a decode step.
            root_mean_square = torch.linalg.vector_norm(states, dim=-1, keepdim=True) * width**-0.5
            states = states / torch.hypot(root_mean_square, self._root_eps)
            return states if weight is None else states * weight
        return F.rms_norm(states, (width,), weight, self._eps)
