"""Blocks are handed out once, in runs where possible, and come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.pytorch.cache.block_manager import BlockManager


def test_a_run_is_preferred_and_the_shortest_that_fits() -> None:
    blocks = BlockManager(20)
    first, second, third = blocks.allocate(4), blocks.allocate(8), blocks.allocate(3)
    assert (first, second, third) == (tuple(range(4)), tuple(range(4, 12)), (12, 13, 14))
    blocks.release(second)
    # Free are 4..11 and 15..19.
    assert blocks.allocate(5) == (15, 16, 17, 18, 19)
    assert blocks.allocate(6) == tuple(range(4, 10))


def test_scattered_blocks_serve_where_no_run_is_long_enough() -> None:
    blocks = BlockManager(9)
    pieces = [blocks.allocate(3) for _ in range(3)]
    blocks.release(pieces[0])
    blocks.release([8])
    assert sorted(blocks.allocate(4)) == [0, 1, 2, 8]
    assert blocks.free == 0


def test_a_wrong_use_is_told() -> None:
    blocks = BlockManager(4)
    with pytest.raises(ValueError, match="5 blocks are asked for; 4 are free"):
        blocks.allocate(5)
    taken = blocks.allocate(2)
    blocks.release(taken)
    for wrong in (0, 4, -1):
        with pytest.raises(ValueError, match=f"block {wrong} is not in use"):
            blocks.release([wrong])
    assert blocks.free == 4


@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60))
def test_no_block_is_lost_or_handed_out_twice(total: int, actions: list[tuple[bool, int]]) -> None:
    blocks = BlockManager(total)
    taken: list[tuple[int, ...]] = []
    for allocates, number in actions:
        if allocates and number <= blocks.free:
            taken.append(blocks.allocate(number))
            assert len(taken[-1]) == number
        elif taken:
            blocks.release(taken.pop(number % len(taken)))
        used = [block for held in taken for block in held]
        assert len(set(used)) == len(used) == total - blocks.free
        assert all(0 <= block < total for block in used)
    for held in taken:
        blocks.release(held)
    assert blocks.allocate(total) == tuple(range(total))
