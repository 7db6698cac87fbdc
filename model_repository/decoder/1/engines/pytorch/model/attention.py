"""Attention over the paged KV cache: a sequence at a time, in parts that are read in place and merged, or by table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from engines.pytorch.cache.block_tables import TableContext
from engines.pytorch.cache.layer_cache import LayerCache, Place
from engines.pytorch.cache.placement import Context
from engines.pytorch.model.batch import Span

# A part's result, [1, kv heads, queries, head_dim], and the logarithm of the sum of its exponentials, without the last.
# The heads that share a key are queries of one head here, so that the key is read once.
Part = tuple[torch.Tensor, torch.Tensor]


TableAttention = Callable[[torch.Tensor, LayerCache, LayerCache, TableContext], torch.Tensor]
"""Queries [sequences, heads, head_dim], one token each, attend to a layer's cached keys and values: the same shape."""


class PagedAttention:
    """Each sequence's queries attend to its context, and to its own keys up to themselves where they are several."""

    def __init__(self, by_table: TableAttention | None = None) -> None:
        """by_table: computes decode steps whose contexts are in block tables; None where no batch has any."""
        self._by_table = by_table

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        cached_keys: LayerCache,
        cached_values: LayerCache,
        spans: tuple[Span, ...],
        decoding: TableContext | None = None,
    ) -> torch.Tensor:
        """queries: [tokens, heads, head_dim]; keys, values: [tokens, kv heads, head_dim]; cached_keys, cached_values:
        one layer's flat cache, this step's tokens included; spans: the tokens after those of `decoding`.
        Returns [tokens, heads * head_dim].
        """
        kv_heads = keys.shape[1]
        outputs = []
        if decoding is not None:
            assert self._by_table is not None
            decoded, queries = queries.tensor_split([len(decoding.rows)])
            attended = self._by_table(decoded, cached_keys, cached_values, decoding)
            outputs.append(attended.unflatten(1, (kv_heads, -1)))
        grouped = queries.unflatten(1, (kv_heads, -1))
        for span, own in zip(spans, grouped.split([span.end - span.begin for span in spans]), strict=True):
            if len(own) == 1:
                outputs.append(_decode_attention(own, cached_keys, cached_values, span.context))
            else:
                here = slice(span.begin, span.end)
                outputs.append(
                    _prefill_attention(own, keys[here], values[here], cached_keys, cached_values, span.context)
                )
        return torch.cat(outputs).flatten(1)


def _prefill_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cached_keys: LayerCache,
    cached_values: LayerCache,
    context: Context,
) -> torch.Tensor:
    """Several tokens, whose queries are [tokens, kv heads, group, head_dim]."""
    tokens, kv_heads, group, width = queries.shape
    by_head = queries.permute(1, 2, 0, 3).reshape(1, kv_heads, group * tokens, width)
    places = _places(context, cached_keys.most_tokens)
    parts = list(_context_parts(by_head, cached_keys, cached_values, places))
    parts.append(_causal_part(by_head, keys, values))
    return _merge(parts).view(kv_heads, group, tokens, width).permute(2, 0, 1, 3)


def _decode_attention(queries: torch.Tensor, keys: LayerCache, values: LayerCache, context: Context) -> torch.Tensor:
    """A single token, whose queries [1, kv heads, group, head_dim] have the layout that a part wants as they are."""
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
    queries: torch.Tensor, keys: LayerCache, values: LayerCache, places: Iterable[Place]
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
