"""The part of a prompt that has arrived and is not in the KV cache yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engines.protocol import PromptPiece


@dataclass(frozen=True)
class PromptSpan:
    """Neighbouring tokens of one piece."""

    offset: int
    """How many tokens of the same reading lie before it."""
    token_ids: torch.Tensor
    """[tokens]"""
    positions: torch.Tensor
    """[3, tokens]"""
    visual: torch.Tensor
    """[visual tokens], which of these tokens they are."""
    rows: torch.Tensor
    """[visual tokens, hidden * (1 + levels)]"""


def to_span(
    piece: PromptPiece, visual_token_ids: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> PromptSpan:
    """Token ids and positions stay on the host, where batches are put together; rows go to the device at once."""
    token_ids = torch.from_numpy(piece.token_ids).long()
    return PromptSpan(
        offset=0,
        token_ids=token_ids,
        positions=torch.from_numpy(piece.positions).long(),
        visual=torch.isin(token_ids, torch.tensor(visual_token_ids)).nonzero().squeeze(1),
        rows=piece.rows.to(device, dtype),
    )


class Prompt:
    """Spans in order."""

    def __init__(self) -> None:
        self._spans: deque[PromptSpan] = deque()
        self.available = 0
        """Tokens that have come and were not dropped."""
        self.next = 0
        """Which of the prompt's tokens is read next."""

    def append(self, span: PromptSpan, begin: int) -> None:
        """Adds what follows, a span from the prompt's token `begin` on; what is not needed of it is left out."""
        needed = self.next + self.available
        count = len(span.token_ids)
        if begin + count > needed:
            span = _cut(span, needed - begin, count, 0)
            self._spans.append(span)
            self.available += len(span.token_ids)

    def skip_to(self, token: int) -> None:
        """Leaves out what lies before a token of the prompt, whether it has come or not."""
        self.drop(min(self.available, token - self.next))
        self.next = token

    def read(self, tokens: int) -> Iterator[PromptSpan]:
        """The next `tokens` tokens, span by span."""
        offset = 0
        # A copy: while a step reads, the next chunk may be appended by the thread that brings it.
        for span in tuple(self._spans):
            if offset == tokens:
                return
            count = min(tokens - offset, len(span.token_ids))
            yield _cut(span, 0, count, offset)
            offset += count

    def drop(self, tokens: int) -> None:
        """Forgets the next `tokens` tokens, and the memory of spans that are used up."""
        self.available -= tokens
        self.next += tokens
        while tokens:
            span = self._spans.popleft()
            count = len(span.token_ids)
            if tokens < count:
                self._spans.appendleft(_cut(span, tokens, count, 0))
                return
            tokens -= count


def _cut(span: PromptSpan, begin: int, end: int, offset: int) -> PromptSpan:
    first, stop = torch.searchsorted(span.visual, torch.tensor([begin, end])).tolist()
    return PromptSpan(
        offset=offset,
        token_ids=span.token_ids[begin:end],
        positions=span.positions[:, begin:end],
        visual=span.visual[first:stop] - begin,
        rows=span.rows[first:stop],
    )
