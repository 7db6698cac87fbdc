"""Attention over the paged KV cache: a sequence at a time, in parts that are read in place and merged, or by table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from engines.pytorch.batch import Span
from engines.pytorch.cache.block_tables import TableContext
from engines.pytorch.model.layer_cache import KeptStates, Place
from engines.pytorch.sequence import Context

# A part's result, [1, kv heads, queries, head_dim], and the logarithm of the sum of its exponentials, without the last.
# The heads that share a key are queries of one head here, so that the key is read once.
Part = tuple[torch.Tensor, torch.Tensor]


def paged_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cached_keys: KeptStates,
    cached_values: KeptStates,
    spans: tuple[Span, ...],
    decoding: TableContext | None = None,
) -> torch.Tensor:
    """Each sequence's queries attend to its context, and to its own keys up to themselves where they are several.

    queries: [tokens, heads, head_dim]; keys, values: [tokens, kv heads, head_dim]; cached_keys, cached_values: one
    layer's flat cache, this step's tokens included; spans: of the tokens after those that `decoding` is about.
    Returns [tokens, heads * head_dim].
    """
    outputs = []
    if decoding is not None:
        # Only where it is used: Triton comes with PyTorch for GPUs.
        from engines.pytorch.model.table_attention import table_attention

        decoded, queries = queries.tensor_split([len(decoding.rows)])
        attended = table_attention(decoded, cached_keys, cached_values, decoding)
        outputs.append(attended.unflatten(1, (keys.shape[1], -1)))
    grouped = queries.unflatten(1, (keys.shape[1], -1))
    for span, own in zip(spans, grouped.split([span.end - span.begin for span in spans]), strict=True):
        if len(own) == 1:
            outputs.append(_decode_attention(own, cached_keys, cached_values, span.context))
            continue
        tokens, kv_heads, group, width = own.shape
        by_head = own.permute(1, 2, 0, 3).reshape(1, kv_heads, group * tokens, width)
        places = _places(span.context, cached_keys.most_tokens)
        parts = list(_context_parts(by_head, cached_keys, cached_values, places))
        parts.append(_causal_part(by_head, keys[span.begin : span.end], values[span.begin : span.end]))
        outputs.append(_merge(parts).view(kv_heads, group, tokens, width).permute(2, 0, 1, 3))
    return torch.cat(outputs).flatten(1)


def _decode_attention(queries: torch.Tensor, keys: KeptStates, values: KeptStates, context: Context) -> torch.Tensor:
    """Of a single token, whose queries [1, kv heads, group, head_dim] have the layout that a part wants as they are."""
    places = list(_places(context, keys.most_tokens))
    if len(places) == 1 and queries.device.type == "cpu" and queries.dtype == torch.float32:
        # For so few queries, plain products read a long context faster than the kernel that saves keeping the scores.
        scores = torch.bmm(queries[0] * queries.shape[3] ** -0.5, keys.read(places[0]).transpose(1, 2))
        return torch.bmm(scores.softmax(dim=2), values.read(places[0])).unsqueeze(0)
    return _merge(list(_context_parts(queries, keys, values, places)))


def _merge(parts: list[Part]) -> torch.Tensor:
    """Attention to all parts' keys: their results weighed by their sums of exponentials (FlashDecoding's reduction)."""
    if len(parts) == 1:
        return parts[0][0]
    results = torch.stack([result for result, _ in parts])
    weights = torch.stack([logarithm for _, logarithm in parts]).softmax(dim=0)
    return (results * weights.unsqueeze(-1)).sum(dim=0).to(results.dtype)


def _context_parts(
    queries: torch.Tensor, keys: KeptStates, values: KeptStates, places: Iterable[Place]
) -> Iterator[Part]:
    """All queries see all keys."""
    for place in places:
        # A slice reads the cache in place, in the precision that is computed with; an index tensor copies.
        yield _flash_attention(queries, keys.read(place).unsqueeze(0), values.read(place).unsqueeze(0))


def _places(context: Context, most_tokens: int | None) -> Iterator[Place]:
    for run in context.runs:
        stride = most_tokens or run.stop - run.start
        yield from (slice(begin, min(begin + stride, run.stop)) for begin in range(run.start, run.stop, stride))
    if len(context.scattered):
        yield from context.scattered.split(most_tokens or len(context.scattered))


def _causal_part(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Part:
    group = queries.shape[2] // len(keys)
    per_head = queries.reshape(1, -1, len(keys), queries.shape[3])
    result, logarithm = _flash_attention(
        per_head, keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0), causal=True
    )
    return result.reshape(queries.shape), logarithm.reshape(1, -1, group * len(keys))


def _flash_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, causal: bool = False) -> Part:
    """The kernels behind scaled_dot_product_attention, asked for by name because they tell the logarithms too.

    queries: [1, heads, queries, head_dim]; keys, values: [1, kv heads, keys, head_dim]
    """
    if queries.device.type == "cpu":
        part: Part = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries, keys, values, is_causal=causal)
        return part
    # By this name it takes as many heads of keys as of queries; a context's are, a step's own keys are few.
    if (group := queries.shape[1] // keys.shape[1]) > 1:
        keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    result, logarithm, *_ = torch.ops.aten._scaled_dot_product_flash_attention(queries, keys, values, 0.0, causal)
    return result, logarithm
