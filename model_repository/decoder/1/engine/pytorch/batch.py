"""One engine step's work as flat tensors: the tokens of all sequences side by side."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch

from engine.pytorch.sequence import Sequence


@dataclass(frozen=True)
class Work:
    """What one sequence does in a step: a decode step (its newest token), or `tokens` of its prompt."""

    sequence: Sequence
    tokens: int

    @property
    def yields_token(self) -> bool:
        """Whether the last of these tokens is followed by a generated one."""
        return self.sequence.cached + self.tokens >= self.sequence.prompt_tokens


@dataclass(frozen=True)
class Span:
    """One sequence's part of the batch.

    begin, end: its tokens in the batch, which are the last ones of its context.
    context: where the context's keys and values lie in the flat cache: a slice where its blocks are neighbours,
        else an index tensor [context tokens].
    context_tokens: how many these are, this step's included.
    """

    begin: int
    end: int
    context: slice | torch.Tensor
    context_tokens: int


@dataclass(frozen=True)
class Batch:
    """
    token_ids: [tokens]
    positions: [3, tokens]
    slots: [tokens], where each token's key and value go in the flat cache
    spans: one per sequence, in the order of the work
    visual: [visual tokens], which tokens of the batch they are; rows: [visual tokens, hidden * (1 + levels)]
    yielding: [sequences that yield a token], the batch's tokens whose logits are wanted
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    spans: tuple[Span, ...]
    visual: torch.Tensor
    rows: torch.Tensor
    yielding: torch.Tensor


def build_batch(work: SequenceOf[Work], device: torch.device) -> Batch:
    """Reads what each sequence computes next; changes nothing, so that a failed step can be built again."""
    token_ids: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    slots: list[torch.Tensor] = []
    spans: list[Span] = []
    visual: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    yielding: list[int] = []
    begin = 0
    for item in work:
        sequence, end = item.sequence, begin + item.tokens
        if sequence.prefilling:
            for stretch in sequence.prompt.read(item.tokens):
                visual.append(stretch.visual + (begin + stretch.offset))
                rows.append(stretch.rows)
                token_ids.append(stretch.token_ids)
                positions.append(stretch.positions)
        else:
            token_ids.append(torch.tensor(sequence.output[-1:]))
            positions.append(torch.full((3, 1), sequence.next_position + len(sequence.output) - 1))
        context_tokens = sequence.cached + item.tokens
        slots.append(sequence.slots[sequence.cached : context_tokens])
        spans.append(Span(begin, end, sequence.context(context_tokens), context_tokens))
        if item.yields_token:
            yielding.append(end - 1)
        begin = end
    return Batch(
        token_ids=torch.cat(token_ids).to(device),
        positions=torch.cat(positions, dim=1).to(device),
        slots=torch.cat(slots),
        spans=tuple(spans),
        visual=(torch.cat(visual) if visual else torch.empty(0, dtype=torch.long)).to(device),
        rows=torch.cat(rows) if rows else torch.empty(0, 0, device=device),
        yielding=torch.tensor(yielding, dtype=torch.long, device=device),
    )
