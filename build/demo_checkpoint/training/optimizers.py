"""AdamW, or Muon for the matrices of the layers and AdamW for everything else; one learning-rate schedule."""

from __future__ import annotations

import torch
from torch import nn

READERS = ("lm_head.", "read.", "digits.")
"""Parameters that only read the hidden state, and may follow it fast."""
READERS_FASTER = 4.0


class Optimizers:
    def __init__(
        self,
        *models: nn.Module,
        adam_rate: float,
        muon_rate: float | None = None,
        steps: int,
        warmup: int = 50,
        falling: float = 0.25,
    ) -> None:
        """`muon_rate` None: AdamW for all. Muon learns more from a batch, but on a CPU a small batch costs less than
        its own arithmetic. `falling`: over which last share of the steps the rates fall."""
        named = [(name, p) for model in models for name, p in model.named_parameters() if p.requires_grad]
        layers = [p for name, p in named if p.ndim == 2 and ("layers." in name or "blocks." in name)]
        matrices = {id(p): p for p in layers if muon_rate is not None}
        readers = [p for name, p in named if name.startswith(READERS)]
        others = [p for name, p in named if id(p) not in matrices and not name.startswith(READERS)]
        self.steps, self.warmup, self.falling = steps, warmup, falling
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (_adamw(others), adam_rate),
        ]
        if readers:
            self.optimizers.append((_adamw(readers), READERS_FASTER * adam_rate))
        if muon_rate is not None:
            muon = torch.optim.Muon([*matrices.values()], weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            self.optimizers.append((muon, muon_rate))
        self.parameters = [p for _, p in named]

    def step(self, step: int) -> None:
        """Applies and clears the gradients; the rate rises over `warmup` steps, stays, and falls to a fiftieth."""
        remaining = max(1 - step / self.steps, 0.0)
        factor = min((step + 1) / self.warmup, 1.0, 0.02 + 0.98 * remaining / self.falling)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer, _ in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        for (optimizer, _), state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def _adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
