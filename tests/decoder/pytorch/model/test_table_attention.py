"""Attention by block table, as on a GPU, in Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch

from engines.pytorch.cache.block_tables import BlockTables
from engines.pytorch.cache.layer_cache import FloatLayerCache, Int8LayerCache, LayerCache
from engines.pytorch.model.table_attention import TILE, table_attention

CPU = torch.device("cpu")
BLOCKS, WIDTH = 64, 32


def kept(states: torch.Tensor, precision: torch.dtype) -> LayerCache:
    """A flat cache with these states [kv heads, slots, width]."""
    if precision != torch.int8:
        return FloatLayerCache(states.to(precision), torch.float32)
    scales = torch.zeros(*states.shape[:2], 1, dtype=torch.float16)
    kept = Int8LayerCache(torch.zeros(states.shape, dtype=torch.int8), scales, torch.float32)
    kept.write(torch.arange(states.shape[1]), states.transpose(0, 1))
    return kept


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (8, 1), (20, 1)])
@pytest.mark.parametrize("block_size", [1, 5, 16])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.int8])
def test_each_sequence_attends_to_its_own_blocks(
    heads: int, kv_heads: int, block_size: int, precision: torch.dtype
) -> None:
    """Against a plain softmax; lengths around a tile's and a block's end, rows in another order than the sequences."""
    torch.manual_seed(heads + block_size)
    slots = BLOCKS * block_size
    keys, values = (kept(torch.randn(kv_heads, slots, WIDTH), precision) for _ in range(2))
    tables = BlockTables(4, BLOCKS, block_size, CPU)
    order = torch.randperm(BLOCKS)
    own = [tuple(order[part::4].tolist()) for part in range(4)]
    rows = [tables.add(blocks) for blocks in own]
    longest = len(own[0]) * block_size
    lengths = [min(longest, length) for length in (1, TILE, TILE + 1, longest)]
    queries = torch.randn(4, heads, WIDTH)
    context = tables.context(torch.tensor(rows), torch.tensor(lengths))
    ours = table_attention(queries, keys, values, context)
    for sequence, (blocks, length) in enumerate(zip(own, lengths, strict=True)):
        seen = torch.tensor([block * block_size + i for block in blocks for i in range(block_size)])[:length]
        assert context.slots[sequence] == seen[-1]
        for head in range(heads):
            kv_head = head * kv_heads // heads
            scores = keys.read(seen)[kv_head] @ queries[sequence, head] / math.sqrt(WIDTH)
            expected = scores.softmax(0) @ values.read(seen)[kv_head]
            torch.testing.assert_close(ours[sequence, head], expected, rtol=1e-4, atol=1e-5)


def test_a_row_that_was_given_back_is_given_again() -> None:
    tables = BlockTables(2, 3, 4, CPU)
    first, second = tables.add((5, 6, 7)), tables.add((1,))
    tables.remove(first)
    assert tables.add((2, 3)) == first != second
    context = tables.context(torch.tensor([first, second]), torch.tensor([6, 4]))
    assert context.slots.tolist() == [3 * 4 + 1, 1 * 4 + 3]
