"""Who computes what in the next step."""

from __future__ import annotations

from collections import deque

import torch

from engine.pytorch.batch import Work
from engine.pytorch.block_manager import BlockManager
from engine.pytorch.sequence import Sequence


class Scheduler:
    """Admits sequences first come, first served, each with all the blocks that it can ever need: one that was admitted
    can always finish, and nothing is evicted half-way."""

    def __init__(
        self, blocks: BlockManager, *, block_size: int, max_batch: int, max_step_tokens: int, device: torch.device
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.blocks = blocks
        self._block_size = block_size
        self._max_batch = max_batch
        self._max_step_tokens = max_step_tokens
        self._device = device

    def blocks_for(self, sequence: Sequence) -> int:
        """Blocks that hold the sequence to its end."""
        return -(-sequence.reserved_tokens // self._block_size)

    def admit(self) -> list[Sequence]:
        """Moves the sequences at the head of the queue that fit into the in-flight batch; returns them."""
        admitted = []
        while self.waiting and len(self.running) < self._max_batch:
            sequence = self.waiting[0]
            needed = self.blocks_for(sequence)
            if needed > self.blocks.free:
                break
            self.waiting.popleft()
            sequence.reserve(self.blocks.allocate(needed), self._block_size, self._device)
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def next_step(self) -> list[Work]:
        """A decode step for everyone who generates; prefill shares what is left of the step's tokens evenly.

        A sequence with less to prefill than its share leaves the rest to the others. Because a step has more tokens
        than the batch has sequences, everyone advances in every step.
        """
        work = [Work(sequence, 1) for sequence in self.running if not sequence.prefilling]
        left = self._max_step_tokens - len(work)
        prefilling = sorted((s for s in self.running if s.prompt.available), key=lambda s: s.prompt.available)
        for index, sequence in enumerate(prefilling):
            tokens = min(sequence.prompt.available, left // (len(prefilling) - index))
            work.append(Work(sequence, tokens))
            left -= tokens
        return work

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence, waiting or running; its blocks are free again."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.blocks.release(sequence.blocks)
        else:
            self.waiting.remove(sequence)
