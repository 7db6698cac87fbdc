"""One session inside the engine."""

from __future__ import annotations

import random

import torch

from engines.protocol import Request
from engines.pytorch.cache.block_keys import BlockKeys
from engines.pytorch.cache.placement import Placement
from engines.pytorch.cache.prefix_cache import Reservation
from engines.pytorch.grammar.grammar import Grammar
from engines.pytorch.prompt import Prompt
from engines.pytorch.token_counts import TokenCounts


class Sequence:
    """Owned by the engine's thread once it is admitted."""

    placement: Placement
    """From `reserve` on."""

    def __init__(
        self,
        session: str,
        request: Request,
        *,
        max_tokens: int,
        stop_token_ids: frozenset[int],
        counts: TokenCounts | None,
        block_keys: BlockKeys,
        grammar: Grammar | None = None,
    ) -> None:
        self.session = session
        self.owner = request.cache_salt
        self.prompt_tokens = request.prompt_tokens
        self.next_position = request.next_position
        self.sampling = request.sampling
        self.max_tokens = max_tokens
        self.stop_token_ids = stop_token_ids
        self.prompt = Prompt()
        self.counts = counts
        self.block_keys = block_keys
        self.grammar = grammar
        self.random = random.Random(request.sampling.seed)
        self.output: list[int] = []
        """Generated token ids that are known on the host."""
        self.generated = 0
        """Tokens that were generated, or are being."""
        self.newest = torch.empty(0, dtype=torch.long)
        """int64 [1] on the device, the last of these."""
        self.cached = 0
        """Tokens whose keys and values are in the cache, or are being computed."""
        self.cancelled = False
        self.over = False
        self.blocks: tuple[int, ...] = ()
        self.row = 0
        """In the block tables, if there are any."""
        self._filled = 0

    @property
    def prefilling(self) -> bool:
        return self.cached < self.prompt_tokens

    @property
    def decoding(self) -> bool:
        """Whether its next token can be computed: what a grammar allows is known when the one before is."""
        known = self.grammar is None or self.generated == len(self.output)
        return not self.prefilling and self.generated < self.max_tokens and known

    @property
    def newest_position(self) -> int:
        """The position of the last generated token, on all three axes."""
        return self.next_position + self.generated - 1

    @property
    def reserved_tokens(self) -> int:
        """The last generated token is never cached."""
        return self.prompt_tokens + self.max_tokens - 1

    def reserve(self, reservation: Reservation, block_size: int, device: torch.device) -> None:
        """Takes its place in the cache, where its prompt may be held in part."""
        self.blocks = reservation.blocks
        self.placement = Placement(self.blocks, self.reserved_tokens, block_size, device)
        self.cached = reservation.held_tokens
        self.prompt.skip_to(self.cached)
        self._filled = self.cached // block_size

    def advance(self, tokens: int, newest: torch.Tensor | None) -> None:
        """Takes what a step computes as computed: `tokens` tokens, and the one that follows if there is one."""
        if self.prefilling:
            self.prompt.drop(tokens)
        self.cached += tokens
        if newest is None:
            return
        self.generated += 1
        self.newest = newest
        if self.counts is not None:
            self.counts.add_output(newest)

    def append(self, token_id: int) -> None:
        """Adds a generated token that is known on the host now."""
        self.block_keys.append(token_id, self.next_position + len(self.output))
        self.output.append(token_id)
        if self.grammar is not None:
            self.grammar.advance(token_id)

    def newly_filled(self, block_size: int) -> range:
        """Its blocks, by index, that have become full of known tokens since the last call."""
        known = min(self.cached, self.prompt_tokens + len(self.output))
        first, self._filled = self._filled, known // block_size
        return range(first, self._filled)
