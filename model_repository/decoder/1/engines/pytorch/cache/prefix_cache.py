"""Blocks that keep their content: what prompts begin with is computed once and shared."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import islice

import numpy as np

from engines.pytorch.cache.block_keys import WIDTH, BlockKeys
from engines.pytorch.cache.block_manager import BlockManager

# Blocks with the same beginning that are looked at for one whose first tokens fit, the newest first.
MAX_SIBLINGS = 64


@dataclass(frozen=True)
class Reservation:
    """A sequence's place in the KV cache."""

    blocks: tuple[int, ...]
    """In the order of its tokens; the first ones may be shared and are never written to."""
    held_tokens: int
    """Tokens at its beginning whose keys and values are there."""
    source: int | None
    """The block that the last of these, which do not fill a block, are to be copied from before anything else is
    reserved; None where there are none."""


@dataclass(frozen=True)
class _Kept:
    """The names of a full block's content and of its predecessor's."""

    name: bytes
    before: bytes


class PrefixCache:
    """Reference counts of all blocks in use, and the content of those that are full.

    A full block stays when nobody uses it any more, until its memory is needed: the least recently used go first.
    Blocks of a sequence are let go from its end, so that a block never goes before those that follow it.
    """

    def __init__(self, blocks: BlockManager, block_size: int, *, enabled: bool) -> None:
        self.total = blocks.total
        self._free = blocks
        self._block_size = block_size
        self._enabled = enabled
        self._users: Counter[int] = Counter()
        # The rows of every full block. One array: small ones of their own would lie between the steps' large tensors,
        # whose memory could then not be given back.
        self._rows = np.empty((blocks.total, block_size, WIDTH), np.int32)
        self._kept: dict[int, _Kept] = {}
        self._by_name: dict[bytes, int] = {}
        self._following: defaultdict[bytes, dict[int, None]] = defaultdict(dict)
        # In the order in which they were let go.
        self._idle: dict[int, None] = {}

    @property
    def cached(self) -> int:
        """Blocks that nobody uses and that keep their content."""
        return len(self._idle)

    @property
    def available(self) -> int:
        """Blocks that nobody uses."""
        return self._free.free + self.cached

    def needs(self, keys: BlockKeys, prompt_tokens: int, tokens: int) -> int:
        """How many of the available blocks a reservation would take now: all but those that somebody uses already."""
        shared = self._find(keys, (prompt_tokens - 1) // self._block_size)
        return -(-tokens // self._block_size) - len(shared) + sum(block in self._idle for block in shared)

    def reserve(self, keys: BlockKeys, prompt_tokens: int, tokens: int) -> Reservation | None:
        """Room for `tokens` tokens that begin with a prompt, or None where there is too little now.

        The longest beginning that is held is shared. The last token of a prompt is never taken for held: what follows
        it is to be computed. With blocks of 4 tokens, 14 tokens that begin with a prompt of 11:

            token    0  1  2  3 | 4  5  6  7 | 8  9 10 11 |12 13
            block      shared   |   shared   |    own     | own      own: 4 blocks less the 2 that are shared
            held     x  x  x  x   x  x  x  x   x                     more: 1 token that the block `source` has too
            rest                               x  x                  at most these: 10 is the prompt's last
        """
        if self.needs(keys, prompt_tokens, tokens) > self.available:
            return None
        shared = self._find(keys, (prompt_tokens - 1) // self._block_size)
        own = -(-tokens // self._block_size) - len(shared)
        for block in shared:
            self._idle.pop(block, None)
            self._users[block] += 1
        rest = prompt_tokens - 1 - len(shared) * self._block_size
        source, more = self._find_part(keys, len(shared), min(rest, self._block_size))
        while self._free.free < own:
            self._evict()
        blocks = self._free.allocate(own)
        self._users.update(blocks)
        held = len(shared) * self._block_size
        if source in self._kept:
            return Reservation((*shared, *blocks), held + more, source)
        # There was none, or it has just been evicted.
        return Reservation((*shared, *blocks), held, None)

    def fill(self, keys: BlockKeys, index: int, block: int) -> None:
        """Says that `block` is full: it has the keys and values of the block `index` of a sequence.

        Where another block has the same content already, that one stays the one that is shared.
        """
        name = keys.name(index)
        if not self._enabled or name in self._by_name:
            return
        kept = _Kept(name, keys.name(index - 1))
        self._rows[block] = keys.rows(index, self._block_size)
        self._kept[block] = kept
        self._by_name[name] = block
        self._following[kept.before][block] = None

    def release(self, blocks: tuple[int, ...]) -> None:
        """Lets a sequence's blocks go."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block]:
                continue
            del self._users[block]
            if block in self._kept:
                self._idle[block] = None
            else:
                self._free.release([block])

    def _find(self, keys: BlockKeys, most: int) -> list[int]:
        """The blocks that hold the beginning, `most` at most."""
        found: list[int] = []
        while self._by_name and len(found) < most:
            block = self._by_name.get(keys.name(len(found)))
            if block is None:
                break
            found.append(block)
        return found

    def _find_part(self, keys: BlockKeys, index: int, most: int) -> tuple[int | None, int]:
        """The block that shares the most first tokens with the block `index`, and how many; `most` at most."""
        wanted = keys.rows(index, most)
        best: tuple[int | None, int] = (None, 0)
        for block in islice(reversed(self._following.get(keys.name(index - 1), {})), MAX_SIBLINGS):
            same = (self._rows[block, :most] == wanted).all(axis=1)
            tokens = most if same.all() else int(same.argmin())
            if tokens > best[1]:
                best = (block, tokens)
        return best

    def _evict(self) -> None:
        block = next(iter(self._idle))
        del self._idle[block]
        kept = self._kept.pop(block)
        del self._by_name[kept.name]
        siblings = self._following[kept.before]
        del siblings[block]
        if not siblings:
            del self._following[kept.before]
        self._free.release([block])
