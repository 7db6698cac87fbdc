"""Attention of one new token per sequence to the paged KV cache, for a whole batch in one Triton kernel.

Where a sequence's blocks lie is read from a table on the device (PagedAttention, arXiv 2309.06180). A context is cut
into parts that are attended to at the same time and merged (FlashDecoding): one long context keeps a whole GPU busy.
Nothing that a launch depends on changes from step to step, so that it can be part of a CUDA graph.

PyTorch's own attention with a block table (varlen_attn) needs FlashAttention 3, which an RTX 4090D, an A10G and an
A100 cannot run.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from engines.pytorch.cache.block_tables import TableContext
from engines.pytorch.cache.layer_cache import LayerCache

# Tokens of a context that are multiplied at once.
TILE = 64
# What tl.dot takes at least.
_FEWEST_QUERIES = 16
# Programs per multiprocessor: enough that they hide each other's waits for memory.
_PROGRAMS = 4
_MOST_PARTS = 64


def table_attention(queries: torch.Tensor, keys: LayerCache, values: LayerCache, context: TableContext) -> torch.Tensor:
    """Each token's queries [sequences, heads, head_dim] attend to its context in one layer's flat cache: the same shape
    and dtype. head_dim is a power of two."""
    sequences, heads, width = queries.shape
    cached_keys, *key_scales = keys.memory
    cached_values, *value_scales = values.memory
    kv_heads, slots = cached_keys.shape[:2]
    parts = _parts(sequences * kv_heads, queries.device)
    results = queries.new_empty((sequences, heads, parts, width), dtype=torch.float32)
    logarithms = queries.new_empty((sequences, heads, parts), dtype=torch.float32)
    group = heads // kv_heads
    _attend[sequences, kv_heads, parts](
        queries,
        cached_keys,
        cached_values,
        key_scales[0] if key_scales else cached_keys,
        value_scales[0] if value_scales else cached_values,
        context.tables,
        context.rows,
        context.lengths,
        results,
        logarithms,
        width**-0.5,
        slots,
        context.tables.shape[1],
        queries.stride(0),
        GROUP=group,
        QUERIES=max(_FEWEST_QUERIES, triton.next_power_of_2(group)),
        WIDTH=width,
        BLOCK=context.block_size,
        TOKENS=TILE,
        SCALED=bool(key_scales),
    )
    outputs = torch.empty_like(queries, memory_format=torch.contiguous_format)
    _merge[sequences, heads](results, logarithms, outputs, PARTS=parts, WIDTH=width)
    return outputs


def _parts(contexts: int, device: torch.device) -> int:
    """Into how many parts each of so many contexts is cut: a power of two."""
    wanted = _PROGRAMS * _multiprocessors(device) // contexts
    return max(1, min(_MOST_PARTS, 1 << max(0, wanted.bit_length() - 1)))


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    # Triton's interpreter, in which tests run the kernel on a CPU, takes one program after the other.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


@triton.jit
def _attend(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_scales: tl.tensor,
    value_scales: tl.tensor,
    tables: tl.tensor,
    rows: tl.tensor,
    lengths: tl.tensor,
    results: tl.tensor,
    logarithms: tl.tensor,
    factor: tl.tensor,
    slots: tl.tensor,
    table_width: tl.tensor,
    query_stride: tl.tensor,
    GROUP: tl.constexpr,  # noqa: N803
    QUERIES: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    TOKENS: tl.constexpr,  # noqa: N803
    SCALED: tl.constexpr,  # noqa: N803
) -> None:
    """One part of one sequence's context, for the heads that share a head of keys: they are read once."""
    sequence, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads, parts = tl.num_programs(1), tl.num_programs(2)
    length = tl.load(lengths + sequence).to(tl.int32)
    table = tables + tl.load(rows + sequence) * table_width
    share = tl.cdiv(tl.cdiv(length, parts), TOKENS) * TOKENS
    begin = part * share
    end = tl.minimum(begin + share, length)

    member, column = tl.arange(0, QUERIES), tl.arange(0, WIDTH)
    own_queries = queries + sequence * query_stride + kv_head * GROUP * WIDTH
    head = (sequence * kv_heads + kv_head) * GROUP + member
    query = tl.load(own_queries + member[:, None] * WIDTH + column[None, :], mask=member[:, None] < GROUP, other=0.0)
    first_slot = kv_head.to(tl.int64) * slots

    highest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    result = tl.zeros([QUERIES, WIDTH], tl.float32)
    for first in range(begin, end, TOKENS):
        token = first + tl.arange(0, TOKENS)
        seen = token < end
        block = tl.load(table + token // BLOCK, mask=seen, other=0).to(tl.int64)
        slot = first_slot + block * BLOCK + token % BLOCK
        place = slot[:, None] * WIDTH + column[None, :]
        key = tl.load(keys + place, mask=seen[:, None], other=0).to(query.dtype)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * factor
        if SCALED:
            scores *= tl.load(key_scales + slot, mask=seen, other=0.0).to(tl.float32)[None, :]
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.exp(scores - higher[:, None])
        shrink = tl.exp(highest - higher)
        total = total * shrink + tl.sum(weights, axis=1)
        if SCALED:
            weights *= tl.load(value_scales + slot, mask=seen, other=0.0).to(tl.float32)[None, :]
        value = tl.load(values + place, mask=seen[:, None], other=0).to(query.dtype)
        result = result * shrink[:, None] + tl.dot(weights.to(query.dtype), value, input_precision="ieee")
        highest = higher

    own = head * parts + part
    # A part that has no tokens weighs nothing: its highest score is -inf.
    total = tl.where(total > 0, total, 1.0)
    tl.store(results + own[:, None] * WIDTH + column[None, :], result / total[:, None], mask=member[:, None] < GROUP)
    tl.store(logarithms + own, highest + tl.log(total), mask=member < GROUP)


@triton.jit
def _merge(
    results: tl.tensor,
    logarithms: tl.tensor,
    outputs: tl.tensor,
    PARTS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
) -> None:
    """The parts' results of one head, weighed by their sums of exponentials."""
    head = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    part, column = tl.arange(0, PARTS), tl.arange(0, WIDTH)
    logarithm = tl.load(logarithms + head * PARTS + part)
    weight = tl.exp(logarithm - tl.max(logarithm, axis=0))
    result = tl.load(results + (head * PARTS + part)[:, None] * WIDTH + column[None, :])
    merged = tl.sum(result * weight[:, None], axis=0) / tl.sum(weight, axis=0)
    tl.store(outputs + head * WIDTH + column, merged.to(outputs.dtype.element_ty))
