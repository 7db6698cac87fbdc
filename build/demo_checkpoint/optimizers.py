"""Muon for the matrices of the layers, AdamW for everything else, one learning-rate schedule for both."""

from __future__ import annotations

import math

import torch
from torch import nn


class Optimizers:
    def __init__(self, *models: nn.Module, muon_rate: float, adam_rate: float, steps: int, warmup: int = 50) -> None:
        named = [(name, p) for model in models for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and ("layers." in name or "blocks." in name)]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        self.steps, self.warmup = steps, warmup
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=muon_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self.rates = (muon_rate, adam_rate)
        self.parameters = [p for _, p in named]

    def step(self, step: int) -> None:
        """Applies and clears the gradients; the rate rises over `warmup` steps, then falls as a cosine to a
        fiftieth."""
        progress = min(step / self.steps, 1.0)
        factor = min((step + 1) / self.warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
