"""Which tokens a sequence has seen: what penalties are about."""

from __future__ import annotations

import torch


class TokenCounts:
    """prompt: bool [vocabulary], the prompt's tokens; output: float32 [vocabulary], how often each was generated."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.prompt = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.output = torch.zeros(vocab_size, dtype=torch.float32, device=device)

    def add_prompt(self, token_ids: torch.Tensor) -> None:
        """Marks the prompt's tokens."""
        self.prompt[token_ids.to(self.prompt.device)] = True

    def add_output(self, token_id: int) -> None:
        """Counts a generated token."""
        self.output[token_id] += 1
