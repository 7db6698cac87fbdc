"""Where a sequence's keys and values lie in the flat cache."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import dataclass

import torch

# Runs of neighbouring blocks that are read in place; each costs a call per layer, so shorter ones are gathered.
MAX_RUNS = 8


@dataclass(frozen=True)
class Context:
    """The slots of the tokens that a query sees."""

    runs: tuple[slice, ...]
    """Read in place."""
    scattered: torch.Tensor
    """int64 [tokens], gathered; possibly none."""


class Placement:
    """The slots of a sequence's tokens, in the blocks that are reserved for it.

    With blocks of 4 tokens, 11 tokens in the blocks 7, 8 and 3, and MAX_RUNS 1:

        token       0   1   2   3 | 4   5   6   7 | 8   9  10
        block             7       |       8       |     3
        slot       28  29  30  31  32  33  34  35 |12  13  14
        context    [ run 28:36                   ] [scattered]

    `context(6)` is the run 28:34; `context(9)` is the run 28:36 and the scattered slot 12.
    """

    def __init__(self, blocks: tuple[int, ...], tokens: int, block_size: int, device: torch.device) -> None:
        starts = torch.tensor(blocks).unsqueeze(1) * block_size
        slots = (starts + torch.arange(block_size)).flatten()[:tokens]
        self.slots = slots.to(device)
        """[tokens], the place of each token in the flat cache."""
        borders = [0, *(i for i in range(1, len(blocks)) if blocks[i] != blocks[i - 1] + 1), len(blocks)]
        runs = [(begin * block_size, end * block_size) for begin, end in itertools.pairwise(borders)]
        long = sorted(sorted(runs, key=lambda run: run[0] - run[1])[:MAX_RUNS])
        # First token, its slot, and how many tokens follow one another from there on.
        self._runs = [(begin, int(slots[begin]), min(end, tokens) - begin) for begin, end in long]
        self._scattered_tokens = [
            token for begin, end in runs if (begin, end) not in long for token in range(begin, min(end, tokens))
        ]
        self._scattered = self.slots[self._scattered_tokens]

    def context(self, tokens: int) -> Context:
        """The slots of the first `tokens` tokens."""
        return Context(
            tuple(
                slice(slot, slot + min(count, tokens - first)) for first, slot, count in self._runs if first < tokens
            ),
            self._scattered[: bisect_left(self._scattered_tokens, tokens)],
        )
