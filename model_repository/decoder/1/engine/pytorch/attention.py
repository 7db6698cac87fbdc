"""Attention over the paged KV cache, a sequence at a time, in parts that are read in place and merged."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from engine.pytorch.batch import Span
from engine.pytorch.kept_states import KeptStates, Place
from engine.pytorch.sequence import Context

# A part's result, [1, heads, queries, head_dim], and the logarithm of the sum of its exponentials, [1, heads, queries].
Part = tuple[torch.Tensor, torch.Tensor]

# The kernel behind scaled_dot_product_attention on a CPU, asked for by name because it tells the logarithms too.
_flash_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def paged_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cached_keys: KeptStates,
    cached_values: KeptStates,
    spans: tuple[Span, ...],
) -> torch.Tensor:
    """Each span's queries attend to its context, and to the batch's own keys up to themselves where they are several.

    queries: [tokens, heads, head_dim]; keys, values: [tokens, kv heads, head_dim]; cached_keys, cached_values: one
    layer's flat cache, this step's tokens included. Returns [tokens, heads * head_dim].
    """
    outputs = torch.empty_like(queries)
    for span in spans:
        own = slice(span.begin, span.end)
        parts = list(_context_parts(queries[own], cached_keys, cached_values, span.context))
        if span.end - span.begin > 1:
            parts.append(_causal_part(queries[own], keys[own], values[own]))
        attended = parts[0][0] if len(parts) == 1 else merge(parts)
        outputs[own] = attended.squeeze(0).transpose(0, 1)
    return outputs.flatten(1)


def merge(parts: list[Part]) -> torch.Tensor:
    """Attention to all parts' keys: their results weighed by their sums of exponentials (FlashDecoding's reduction)."""
    results = torch.stack([result for result, _ in parts])
    weights = torch.stack([logarithm for _, logarithm in parts]).softmax(dim=0)
    return (results * weights.unsqueeze(-1)).sum(dim=0).to(results.dtype)


def _context_parts(queries: torch.Tensor, keys: KeptStates, values: KeptStates, context: Context) -> Iterator[Part]:
    """All queries see all keys: the heads that share a key go as queries of one head, so that it is read once."""
    tokens, heads, _ = queries.shape
    kv_heads = keys.memory[0].shape[1]
    grouped = queries.unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3).reshape(1, kv_heads, -1, queries.shape[2])
    for place in _places(context, keys.most_tokens):
        # A slice reads the cache in place, in the precision that is computed with; an index tensor copies.
        result, logarithm = _flash_attention(grouped, _by_head(keys.read(place)), _by_head(values.read(place)))
        yield result.reshape(1, heads, tokens, -1), logarithm.reshape(1, heads, tokens)


def _places(context: Context, most_tokens: int | None) -> Iterator[Place]:
    for run in context.runs:
        stride = most_tokens or run.stop - run.start
        yield from (slice(begin, min(begin + stride, run.stop)) for begin in range(run.start, run.stop, stride))
    if len(context.scattered):
        yield from context.scattered.split(most_tokens or len(context.scattered))


def _causal_part(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Part:
    result, logarithm = _flash_attention(_by_head(queries), _by_head(keys), _by_head(values), is_causal=True)
    return result, logarithm


def _by_head(states: torch.Tensor) -> torch.Tensor:
    """[tokens, heads, head_dim] as [1, heads, tokens, head_dim]."""
    return states.transpose(0, 1).unsqueeze(0)
