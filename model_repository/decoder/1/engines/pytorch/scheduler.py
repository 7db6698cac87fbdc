"""Who computes what in the next step."""

from __future__ import annotations

import torch

from engines.fair_queue import FairQueue
from engines.pytorch.cache.block_tables import BlockTables
from engines.pytorch.cache.prefix_cache import PrefixCache, Reservation
from engines.pytorch.prefill_cost import affordable_tokens, cost
from engines.pytorch.sequence import Sequence
from engines.pytorch.work import Work

PREFILL_SHARE = 256
"""Tokens of one prompt in a step, at least. On a CPU, attention of fewer takes up to twice as long a token."""


class Scheduler:
    """Admits sequences in the queue's order, each with all the blocks that it can ever need: one that was admitted can
    always finish, and nothing is evicted half-way."""

    def __init__(
        self,
        queue: FairQueue[Sequence],
        blocks: PrefixCache,
        *,
        tables: BlockTables | None,
        block_size: int,
        max_step_tokens: int,
        device: torch.device,
    ) -> None:
        self.queue = queue
        # In line for prefill.
        self.running: list[Sequence] = []
        self.blocks = blocks
        self.tables = tables
        self._block_size = block_size
        self._max_step_tokens = max_step_tokens
        self.prefill_share = PREFILL_SHARE
        self._device = device

    def admit(self) -> tuple[Sequence, Reservation] | None:
        """Moves the sequence that is next in the queue into the in-flight batch, if there is room for it."""
        available = self.blocks.available
        sequence = self.queue.next(available, self._needs)
        if sequence is None:
            return None
        reservation = self.blocks.reserve(sequence.block_keys, sequence.prompt_tokens, sequence.reserved_tokens)
        assert reservation is not None
        self.queue.admit(sequence, available - self.blocks.available)
        sequence.reserve(reservation, self._block_size, self._device)
        if self.tables:
            sequence.row = self.tables.add(sequence.blocks)
        self.running.append(sequence)
        return sequence, reservation

    def _needs(self, sequence: Sequence) -> int:
        return self.blocks.needs(sequence.block_keys, sequence.prompt_tokens, sequence.reserved_tokens)

    def next_step(self) -> list[Work]:
        """A decode step for everyone who generates; prompts share what is left of the step's tokens evenly.

        Where that would be less than `prefill_share` for each, they take turns. A prompt with less to prefill than its
        share leaves the rest to the others. A step has more tokens than the batch has sequences: someone has a turn in
        every step. Tokens with a long context before them count as several: nobody waits long for a step.
        """
        work = [Work(sequence, 1, prefill=False, yields_token=True) for sequence in self.running if sequence.decoding]
        left = self._max_step_tokens - len(work)
        prefilling = sorted(self._whose_turn_it_is(left), key=lambda s: s.prompt.available)
        # Beyond a share for each; below 0 where the only one can have less than its share.
        spare = left - sum(map(self._share_cost, prefilling))
        for index, sequence in enumerate(prefilling):
            share = self._share_cost(sequence)
            tokens = self._piece(sequence, share + spare // (len(prefilling) - index))
            ends = sequence.cached + tokens == sequence.prompt_tokens
            work.append(Work(sequence, tokens, prefill=True, yields_token=ends))
            spare -= cost(tokens, sequence.cached) - share
        return work

    def _whose_turn_it_is(self, budget: int) -> list[Sequence]:
        """Of those with a prompt to prefill, the first in line, as many as `budget` pays a share for."""
        chosen: list[Sequence] = []
        for sequence in self.running:
            share = self._share_cost(sequence)
            if chosen and share > budget:
                break
            if share:
                chosen.append(sequence)
                budget -= share
        return chosen

    def _share_cost(self, sequence: Sequence) -> int:
        return cost(min(sequence.prompt.available, self.prefill_share), sequence.cached)

    def _piece(self, sequence: Sequence, budget: int) -> int:
        """The tokens of its prompt that `budget` pays for: a block at least, however long the context."""
        if len(self.running) == 1:
            # Nobody waits for this step.
            return min(sequence.prompt.available, budget)
        # A share that is paid for is never smaller than this.
        least = min(budget, self._block_size, self.prefill_share)
        return min(sequence.prompt.available, max(least, affordable_tokens(budget, sequence.cached)))

    def end_turns(self, work: list[Work]) -> None:
        """Whose prompt was computed goes to the end of the line."""
        for item in work:
            if item.prefill:
                self.running.remove(item.sequence)
                self.running.append(item.sequence)

    def keep_filled(self, sequence: Sequence) -> None:
        """Lets others share the blocks that have become full."""
        for index in sequence.newly_filled(self._block_size):
            self.blocks.fill(sequence.block_keys, index, sequence.blocks[index])

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence, waiting or running; its blocks are free again, or kept for who begins the same way."""
        if sequence in self.running:
            self.running.remove(sequence)
            available = self.blocks.available
            self.blocks.release(sequence.blocks)
            # Owners share no blocks: what nobody uses any more was this owner's.
            self.queue.leave(sequence, self.blocks.available - available)
            if self.tables:
                self.tables.remove(sequence.row)
        else:
            self.queue.withdraw(sequence)
