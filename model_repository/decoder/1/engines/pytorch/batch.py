"""One engine step's work as flat tensors: the tokens of all sequences side by side."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch

from engines.pytorch.cache.block_tables import BlockTables, TableContext
from engines.pytorch.sequence import Context, Sequence
from engines.pytorch.transfer import to_device


@dataclass(frozen=True)
class Work:
    """What one sequence does in a step: a decode step (its newest token), or `tokens` of its prompt.

    yields_token: the last of these tokens is followed by a generated one
    """

    sequence: Sequence
    tokens: int
    prefill: bool
    yields_token: bool


@dataclass(frozen=True)
class Span:
    """One sequence's part of the batch.

    begin, end: its tokens in the batch
    context: what all of them see; a single token sees itself there, several see themselves in the batch
    """

    begin: int
    end: int
    context: Context


@dataclass(frozen=True)
class Batch:
    """
    token_ids: [tokens]
    positions: [3, tokens]
    slots: [tokens], where each token's key and value go in the flat cache
    decoding: what the first tokens see that are looked up in block tables, one per sequence; None: there are none
    spans: one per other sequence, in the order of the work
    visual: [visual tokens], which tokens of the batch they are; rows: [visual tokens, hidden * (1 + levels)]
    yielding: [sequences that yield a token], the batch's tokens whose logits are wanted
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    decoding: TableContext | None
    spans: tuple[Span, ...]
    visual: torch.Tensor
    rows: torch.Tensor
    yielding: torch.Tensor


def build_batch(work: SequenceOf[Work], device: torch.device, tables: BlockTables | None = None) -> Batch:
    """Reads what each sequence computes next; changes nothing, so that a failed step can be built again.

    work: decode steps first; with `tables` these look up there what they see.
    """
    token_ids: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    slots: list[torch.Tensor] = []
    decoding: list[tuple[int, int]] = []
    spans: list[Span] = []
    visual: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    yielding: list[int] = []
    begin = 0
    for item in work:
        sequence, end = item.sequence, begin + item.tokens
        if item.prefill:
            for stretch in sequence.prompt.read(item.tokens):
                visual.append(stretch.visual + (begin + stretch.offset))
                rows.append(stretch.rows)
                token_ids.append(to_device(stretch.token_ids, device))
                positions.append(stretch.positions)
        else:
            token_ids.append(sequence.newest)
            positions.append(torch.full((3, 1), sequence.newest_position))
        slots.append(sequence.slots[sequence.cached : sequence.cached + item.tokens])
        if tables is None or item.prefill:
            seen = sequence.cached + (item.tokens if item.tokens == 1 else 0)
            spans.append(Span(begin, end, sequence.context(seen)))
        else:
            decoding.append((sequence.row, sequence.cached + 1))
        if item.yields_token:
            yielding.append(end - 1)
        begin = end
    return Batch(
        token_ids=torch.cat(token_ids),
        positions=to_device(torch.cat(positions, dim=1), device),
        slots=torch.cat(slots),
        decoding=None if tables is None else _table_context(tables, decoding, device),
        spans=tuple(spans),
        visual=to_device(torch.cat(visual) if visual else torch.empty(0, dtype=torch.long), device),
        rows=torch.cat(rows) if rows else torch.empty(0, 0, device=device),
        yielding=to_device(torch.tensor(yielding, dtype=torch.long), device),
    )


def _table_context(tables: BlockTables, decoding: list[tuple[int, int]], device: torch.device) -> TableContext | None:
    """Of rows and lengths, which a kernel reads as two arrays."""
    if not decoding:
        return None
    rows, lengths = to_device(torch.tensor(decoding).T.contiguous(), device)
    return tables.context(rows, lengths)
