"""One session inside the engine."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from dataclasses import dataclass

import torch

from engines.protocol import Request
from engines.pytorch.cache.block_keys import Content
from engines.pytorch.cache.prefix_cache import Reservation
from engines.pytorch.grammar.grammar import Grammar
from engines.pytorch.prompt import Prompt
from engines.pytorch.token_counts import TokenCounts

# Runs of neighbouring blocks that are read in place; each costs a call per layer, so shorter ones are gathered.
MAX_RUNS = 8


@dataclass(frozen=True)
class Context:
    """Where keys and values lie in the flat cache: runs that are read in place, and what is scattered.

    scattered: int64 [tokens], possibly none
    """

    runs: tuple[slice, ...]
    scattered: torch.Tensor


class Sequence:
    """Owned by the engine's thread once it is admitted.

    cached: tokens whose keys and values are in the cache, or are being computed
    generated: tokens that were generated, or are being
    newest: int64 [1] on the device, the last of these
    output: generated token ids that are known on the host
    slots: [reserved tokens], the place of each token in the flat cache
    row: in the block tables, if there are any
    """

    def __init__(
        self,
        session: str,
        request: Request,
        *,
        max_tokens: int,
        stop_token_ids: frozenset[int],
        counts: TokenCounts | None,
        content: Content,
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
        self.content = content
        self.grammar = grammar
        self.random = random.Random(request.sampling.seed)
        self.output: list[int] = []
        self.generated = 0
        self.newest = torch.empty(0, dtype=torch.long)
        self.cached = 0
        self.place = 0
        self.cancelled = False
        self.over = False
        self.blocks: tuple[int, ...] = ()
        self.slots = torch.empty(0, dtype=torch.long)
        self.row = 0
        self._filled = 0
        self._runs: list[tuple[int, int, int]] = []
        self._scattered = torch.empty(0, dtype=torch.long)
        self._scattered_tokens: list[int] = []

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
        """Of the last generated token, on all three axes."""
        return self.next_position + self.generated - 1

    @property
    def reserved_tokens(self) -> int:
        """The last generated token is never cached."""
        return self.prompt_tokens + self.max_tokens - 1

    def reserve(self, reservation: Reservation, block_size: int, device: torch.device) -> None:
        """Takes its place in the cache, where its prompt may be held in part."""
        blocks, tokens = reservation.blocks, self.reserved_tokens
        starts = torch.tensor(blocks).unsqueeze(1) * block_size
        slots = (starts + torch.arange(block_size)).flatten()[:tokens]
        self.blocks = blocks
        self.slots = slots.to(device)
        self.cached = reservation.held_tokens
        self.prompt.skip_to(self.cached)
        self._filled = self.cached // block_size
        borders = [0, *(i for i in range(1, len(blocks)) if blocks[i] != blocks[i - 1] + 1), len(blocks)]
        runs = [(begin * block_size, end * block_size) for begin, end in itertools.pairwise(borders)]
        long = sorted(sorted(runs, key=lambda run: run[0] - run[1])[:MAX_RUNS])
        self._runs = [(begin, int(slots[begin]), min(end, tokens) - begin) for begin, end in long]
        self._scattered_tokens = [
            token for begin, end in runs if (begin, end) not in long for token in range(begin, min(end, tokens))
        ]
        self._scattered = self.slots[self._scattered_tokens]

    def context(self, tokens: int) -> Context:
        """Where its first `tokens` tokens lie."""
        return Context(
            tuple(
                slice(slot, slot + min(count, tokens - first)) for first, slot, count in self._runs if first < tokens
            ),
            self._scattered[: bisect_left(self._scattered_tokens, tokens)],
        )

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
        self.content.append(token_id, self.next_position + len(self.output))
        self.output.append(token_id)
        if self.grammar is not None:
            self.grammar.advance(token_id)

    def newly_filled(self, block_size: int) -> range:
        """Its blocks, by index, that have become full of known tokens since the last call."""
        known = min(self.cached, self.prompt_tokens + len(self.output))
        first, self._filled = self._filled, known // block_size
        return range(first, self._filled)
