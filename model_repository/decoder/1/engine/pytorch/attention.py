"""Attention over the paged KV cache by PyTorch's scaled_dot_product_attention, a sequence at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from engine.pytorch.batch import Span

# Values of a causal mask at most (64 MiB in float32): longer stretches of queries are split.
MAX_MASK_VALUES = 1 << 24


def paged_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: tuple[Span, ...]
) -> torch.Tensor:
    """Each span's queries attend to its context up to themselves.

    queries: [tokens, heads, head_dim]; keys, values: one layer's flat cache [slots, kv heads, head_dim], this step's
    tokens included. Returns [tokens, heads * head_dim].
    """
    outputs = torch.empty_like(queries)
    for span in spans:
        # A slice reads the cache in place; an index tensor copies, which only scattered blocks need.
        context = (keys[span.context].transpose(0, 1), values[span.context].transpose(0, 1))
        before = span.context_tokens - (span.end - span.begin)
        if before == 0:
            _attend(queries, *context, outputs, span.begin, span.end, causal=True)
            continue
        stride = max(1, MAX_MASK_VALUES // span.context_tokens)
        for begin in range(span.begin, span.end, stride):
            end = min(begin + stride, span.end)
            visible = before + end - span.begin
            _attend(
                queries, context[0][:, :visible], context[1][:, :visible], outputs, begin, end,
                mask=_causal_mask(end - begin, visible, queries),
            )  # fmt: skip
    return outputs.flatten(1)


def _attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    outputs: torch.Tensor,
    begin: int,
    end: int,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> None:
    attended = F.scaled_dot_product_attention(
        queries[begin:end].transpose(0, 1).unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=mask,
        is_causal=causal,
        enable_gqa=True,
    )
    outputs[begin:end] = attended.squeeze(0).transpose(0, 1)


def _causal_mask(queries: int, visible: int, like: torch.Tensor) -> torch.Tensor | None:
    """[queries, visible]: the last query sees all, the one before it all but the last, and so on."""
    if queries == 1:
        return None
    mask = torch.full((queries, visible), float("-inf"), dtype=like.dtype, device=like.device)
    return mask.triu_(visible - queries + 1)
