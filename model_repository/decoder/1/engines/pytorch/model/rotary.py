"""M-RoPE, interleaved: each frequency turns by one of the three positions time, row and column."""

from __future__ import annotations

import torch

from engines.checkpoint import ModelConfig
from engines.pytorch.model.yarn import yarn_frequencies


class RotaryEmbedding:
    """Qwen3-VL's interleaved M-RoPE (arXiv 2511.21631): frequencies 1, 4, 7, … follow rows and 2, 5, 8, … columns, as
    far as their sections reach; all others follow time."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        half = config.head_dim // 2
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        periods = config.rope_theta**exponents
        frequencies = 1.0 / periods
        if config.yarn is not None:
            frequencies = yarn_frequencies(periods, config.rope_theta, config.yarn)
        self._inverse_frequencies = frequencies.to(device)
        self._scale = 1.0 if config.yarn is None else config.yarn.attention_factor
        axes = torch.zeros(half, dtype=torch.long)
        for axis in (1, 2):
            axes[axis : config.mrope_section[axis] * 3 : 3] = axis
        self._axes = axes.to(device)

    def __call__(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each [tokens, 1, head_dim], for positions [3, tokens]."""
        angles = positions[self._axes].T.float() * self._inverse_frequencies
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
        return (angles.cos() * self._scale).to(dtype), (angles.sin() * self._scale).to(dtype)


def rotate(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotates `states` [tokens, heads, head_dim]; the two halves of a head are the pairs' first and second values."""
    first, second = states.chunk(2, dim=-1)
    return states * cosines + torch.cat((-second, first), dim=-1) * sines
