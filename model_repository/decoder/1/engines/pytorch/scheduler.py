"""Who computes what in the next step."""

from __future__ import annotations

import torch

from engines.fair_queue import FairQueue
from engines.pytorch.batch import Work
from engines.pytorch.cache.block_tables import BlockTables
from engines.pytorch.cache.prefix_cache import PrefixCache, Reservation
from engines.pytorch.sequence import Sequence

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
        reservation = self.blocks.reserve(sequence.content, sequence.prompt_tokens, sequence.reserved_tokens)
        assert reservation is not None
        self.queue.admit(sequence, available - self.blocks.available)
        sequence.reserve(reservation, self._block_size, self._device)
        if self.tables:
            sequence.row = self.tables.add(sequence.blocks)
        self.running.append(sequence)
        return sequence, reservation

    def _needs(self, sequence: Sequence) -> int:
        return self.blocks.needs(sequence.content, sequence.prompt_tokens, sequence.reserved_tokens)

    def next_step(self) -> list[Work]:
        """A decode step for everyone who generates; prompts share what is left of the step's tokens evenly.

        Where that would be less than `prefill_share` for each, they take turns. A prompt with less to prefill than its
        share leaves the rest to the others. A step has more tokens than the batch has sequences: someone has a turn in
        every step.
        """
        work = [Work(sequence, 1, prefill=False, yields_token=True) for sequence in self.running if sequence.decoding]
        left = self._max_step_tokens - len(work)
        prefilling = sorted(self._whose_turn_it_is(left), key=lambda s: s.prompt.available)
        for index, sequence in enumerate(prefilling):
            tokens = min(sequence.prompt.available, left // (len(prefilling) - index))
            ends = sequence.cached + tokens == sequence.prompt_tokens
            work.append(Work(sequence, tokens, prefill=True, yields_token=ends))
            left -= tokens
        return work

    def _whose_turn_it_is(self, tokens: int) -> list[Sequence]:
        """Of those with a prompt to prefill, the first in line, as many as can have a share of `tokens`."""
        chosen: list[Sequence] = []
        for sequence in self.running:
            share = min(sequence.prompt.available, self.prefill_share)
            if chosen and share > tokens:
                break
            if share:
                chosen.append(sequence)
                tokens -= share
        return chosen

    def end_turns(self, work: list[Work]) -> None:
        """Whose prompt was computed goes to the end of the line."""
        for item in work:
            if item.prefill:
                self.running.remove(item.sequence)
                self.running.append(item.sequence)

    def keep_filled(self, sequence: Sequence) -> None:
        """Lets others share the blocks that have become full."""
        for index in sequence.newly_filled(self._block_size):
            self.blocks.fill(sequence.content, index, sequence.blocks[index])

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
