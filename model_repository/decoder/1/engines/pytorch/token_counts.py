"""Which tokens a sequence has seen: what penalties are about."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


class TokenCounts:
    """prompt: bool [vocabulary], the prompt's tokens; output: float32 [vocabulary], how often each was generated."""

    def __init__(self, prompt: NDArray[np.int32], vocab_size: int, device: torch.device) -> None:
        self.prompt = torch.zeros(vocab_size, dtype=torch.bool)
        self.prompt[torch.from_numpy(prompt).long()] = True
        self.prompt = self.prompt.to(device)
        self.output = torch.zeros(vocab_size, dtype=torch.float32, device=device)

    def add_output(self, token_id: torch.Tensor) -> None:
        """Counts a generated token, int64 [1] on the device."""
        self.output[token_id] += 1
