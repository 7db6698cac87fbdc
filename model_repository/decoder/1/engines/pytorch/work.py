"""The work of one step, and the batch that is built of it."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch

from engines.pytorch.cache.block_tables import BlockTables, TableContext
from engines.pytorch.model.batch import Batch, Span
from engines.pytorch.sequence import Sequence
from engines.pytorch.transfer import to_device


@dataclass(frozen=True)
class Work:
    """One sequence's part of a step: a decode step (its newest token), or `tokens` of its prompt."""

    sequence: Sequence
    tokens: int
    prefill: bool
    yields_token: bool
    """The last of these tokens is followed by a generated one."""


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
            for span in sequence.prompt.read(item.tokens):
                visual.append(span.visual + (begin + span.offset))
                rows.append(span.rows)
                token_ids.append(to_device(span.token_ids, device))
                positions.append(span.positions)
        else:
            token_ids.append(sequence.newest)
            positions.append(torch.full((3, 1), sequence.newest_position))
        slots.append(sequence.placement.slots[sequence.cached : sequence.cached + item.tokens])
        if tables is None or item.prefill:
            seen = sequence.cached + (item.tokens if item.tokens == 1 else 0)
            spans.append(Span(begin, end, sequence.placement.context(seen)))
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
    if not decoding:
        return None
    # A kernel reads rows and lengths as two arrays.
    rows, lengths = to_device(torch.tensor(decoding).T.contiguous(), device)
    return tables.context(rows, lengths)
