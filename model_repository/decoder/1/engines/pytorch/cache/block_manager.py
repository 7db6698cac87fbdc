"""Which blocks of the KV cache are free."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class BlockManager:
    """Hands out blocks, preferring neighbours: attention reads a run of neighbouring blocks in place.

    The free blocks are kept as runs `[begin, end)` in ascending order, never touching each other.
    """

    def __init__(self, blocks: int) -> None:
        self.total = blocks
        self.free = blocks
        self._begins = [0]
        self._ends = [blocks]

    def allocate(self, count: int) -> tuple[int, ...]:
        """`count` blocks: one run where one is long enough (the shortest such), else the longest runs.

        Raises ValueError when fewer are free.
        """
        if count > self.free:
            raise ValueError(f"{count} blocks are asked for; {self.free} are free")
        blocks: list[int] = []
        while len(blocks) < count:
            blocks += self._take(count - len(blocks))
        return tuple(blocks)

    def release(self, blocks: Iterable[int]) -> None:
        """Takes blocks back. Raises ValueError for one that is free already or does not exist."""
        for block in blocks:
            self._insert(block)

    def _take(self, count: int) -> range:
        lengths = [end - begin for begin, end in zip(self._begins, self._ends, strict=True)]
        fitting = [length for length in lengths if length >= count]
        run = lengths.index(min(fitting) if fitting else max(lengths))
        begin = self._begins[run]
        end = min(begin + count, self._ends[run])
        if end == self._ends[run]:
            del self._begins[run], self._ends[run]
        else:
            self._begins[run] = end
        self.free -= end - begin
        return range(begin, end)

    def _insert(self, block: int) -> None:
        after = bisect_right(self._begins, block)
        if not 0 <= block < self.total or (after > 0 and block < self._ends[after - 1]):
            raise ValueError(f"block {block} is not in use")
        touches_before = after > 0 and self._ends[after - 1] == block
        touches_after = after < len(self._begins) and self._begins[after] == block + 1
        if touches_before and touches_after:
            self._ends[after - 1] = self._ends[after]
            del self._begins[after], self._ends[after]
        elif touches_before:
            self._ends[after - 1] = block + 1
        elif touches_after:
            self._begins[after] = block
        else:
            self._begins.insert(after, block)
            self._ends.insert(after, block + 1)
        self.free += 1
