"""Who computes what in the next step."""

from __future__ import annotations

from collections import deque

import torch

from engine.departures import Departures
from engine.pytorch.batch import Work
from engine.pytorch.prefix_cache import PrefixCache, Reservation
from engine.pytorch.sequence import Sequence


class Scheduler:
    """Admits sequences first come, first served, each with all the blocks that it can ever need: one that was admitted
    can always finish, and nothing is evicted half-way."""

    def __init__(
        self, blocks: PrefixCache, *, block_size: int, max_batch: int, max_step_tokens: int, device: torch.device
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.blocks = blocks
        self.departures = Departures()
        self._block_size = block_size
        self._max_batch = max_batch
        self._max_step_tokens = max_step_tokens
        self._device = device

    def admit(self) -> tuple[Sequence, Reservation] | None:
        """Moves the sequence at the head of the queue into the in-flight batch, if there is room for it."""
        if not self.waiting or len(self.running) >= self._max_batch:
            return None
        sequence = self.waiting[0]
        reservation = self.blocks.reserve(sequence.content, sequence.prompt_tokens, sequence.reserved_tokens)
        if reservation is None:
            return None
        self.waiting.popleft()
        sequence.reserve(reservation, self._block_size, self._device)
        self.running.append(sequence)
        return sequence, reservation

    def next_step(self) -> list[Work]:
        """A decode step for everyone who generates; prefill shares what is left of the step's tokens evenly.

        A sequence with less to prefill than its share leaves the rest to the others. Because a step has more tokens
        than the batch has sequences, everyone advances in every step.
        """
        work = [Work(sequence, 1, prefill=False, yields_token=True) for sequence in self.running if sequence.decoding]
        left = self._max_step_tokens - len(work)
        prefilling = sorted((s for s in self.running if s.prompt.available), key=lambda s: s.prompt.available)
        for index, sequence in enumerate(prefilling):
            tokens = min(sequence.prompt.available, left // (len(prefilling) - index))
            ends = sequence.cached + tokens == sequence.prompt_tokens
            work.append(Work(sequence, tokens, prefill=True, yields_token=ends))
            left -= tokens
        return work

    def keep_filled(self, sequence: Sequence) -> None:
        """Lets others share the blocks that have become full."""
        for index in sequence.newly_filled(self._block_size):
            self.blocks.fill(sequence.content, index, sequence.blocks[index])

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence, waiting or running; its blocks are free again, or kept for who begins the same way."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.blocks.release(sequence.blocks)
            self.departures.add()
        else:
            self.waiting.remove(sequence)
