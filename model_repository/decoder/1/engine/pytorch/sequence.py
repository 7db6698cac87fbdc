"""One session inside the engine."""

from __future__ import annotations

import itertools
import random

import torch

from engine.protocol import Request
from engine.pytorch.prompt import Prompt
from engine.pytorch.token_counts import TokenCounts


class Sequence:
    """Owned by the engine's thread once it is admitted.

    cached: tokens whose keys and values are in the cache
    output: generated token ids; the newest one is not cached yet
    slots: [reserved tokens], the place of each token in the flat cache
    """

    def __init__(
        self,
        session: str,
        request: Request,
        *,
        max_tokens: int,
        stop_token_ids: frozenset[int],
        counts: TokenCounts | None,
    ) -> None:
        self.session = session
        self.prompt_tokens = request.prompt_tokens
        self.next_position = request.next_position
        self.sampling = request.sampling
        self.max_tokens = max_tokens
        self.stop_token_ids = stop_token_ids
        self.prompt = Prompt()
        self.counts = counts
        self.random = random.Random(request.sampling.seed)
        self.output: list[int] = []
        self.cached = 0
        self.cancelled = False
        self.blocks: tuple[int, ...] = ()
        self.slots = torch.empty(0, dtype=torch.long)
        self._contiguous = False
        self._first_slot = 0

    @property
    def prefilling(self) -> bool:
        return self.cached < self.prompt_tokens

    @property
    def reserved_tokens(self) -> int:
        """The last generated token is never cached."""
        return self.prompt_tokens + self.max_tokens - 1

    def reserve(self, blocks: tuple[int, ...], block_size: int, device: torch.device) -> None:
        """Takes its place in the cache."""
        starts = torch.tensor(blocks).unsqueeze(1) * block_size
        self.blocks = blocks
        self.slots = (starts + torch.arange(block_size)).flatten()[: self.reserved_tokens].to(device)
        self._contiguous = all(after == before + 1 for before, after in itertools.pairwise(blocks))
        self._first_slot = blocks[0] * block_size

    def context(self, tokens: int) -> slice | torch.Tensor:
        """Where its first `tokens` tokens lie in the flat cache."""
        return slice(self._first_slot, self._first_slot + tokens) if self._contiguous else self.slots[:tokens]

    def append(self, token_id: int) -> None:
        """Adds a generated token."""
        self.output.append(token_id)
        if self.counts is not None:
            self.counts.add_output(token_id)
