"""The part of a prompt that has arrived and is not in the KV cache yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engines.protocol import PromptPiece


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tokens of one piece.

    offset: how many tokens of the same reading lie before it
    token_ids: [tokens]; positions: [3, tokens]
    visual: [visual tokens], which of these tokens they are; rows: [visual tokens, hidden * (1 + levels)]
    """

    offset: int
    token_ids: torch.Tensor
    positions: torch.Tensor
    visual: torch.Tensor
    rows: torch.Tensor


def to_stretch(
    piece: PromptPiece, visual_token_ids: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Stretch:
    """Token ids and positions stay on the host, where batches are put together; rows go to the device at once."""
    token_ids = torch.from_numpy(piece.token_ids).long()
    return Stretch(
        offset=0,
        token_ids=token_ids,
        positions=torch.from_numpy(piece.positions).long(),
        visual=torch.isin(token_ids, torch.tensor(visual_token_ids)).nonzero().squeeze(1),
        rows=piece.rows.to(device, dtype),
    )


class Prompt:
    """Stretches in order. next: which of the prompt's tokens is read next."""

    def __init__(self) -> None:
        self._stretches: deque[Stretch] = deque()
        self.available = 0
        self.next = 0

    def append(self, stretch: Stretch, begin: int) -> None:
        """Adds what follows, a stretch from the prompt's token `begin` on; what is not needed of it is left out."""
        needed = self.next + self.available
        count = len(stretch.token_ids)
        if begin + count > needed:
            stretch = _cut(stretch, needed - begin, count, 0)
            self._stretches.append(stretch)
            self.available += len(stretch.token_ids)

    def skip_to(self, token: int) -> None:
        """Leaves out what lies before a token of the prompt, whether it has come or not."""
        self.drop(min(self.available, token - self.next))
        self.next = token

    def read(self, tokens: int) -> Iterator[Stretch]:
        """The next `tokens` tokens, stretch by stretch."""
        offset = 0
        # A copy: while a step reads, the next chunk may be appended by the thread that brings it.
        for stretch in tuple(self._stretches):
            if offset == tokens:
                return
            count = min(tokens - offset, len(stretch.token_ids))
            yield _cut(stretch, 0, count, offset)
            offset += count

    def drop(self, tokens: int) -> None:
        """Forgets the next `tokens` tokens, and the memory of stretches that are used up."""
        self.available -= tokens
        self.next += tokens
        while tokens:
            stretch = self._stretches.popleft()
            count = len(stretch.token_ids)
            if tokens < count:
                self._stretches.appendleft(_cut(stretch, tokens, count, 0))
                return
            tokens -= count


def _cut(stretch: Stretch, begin: int, end: int, offset: int) -> Stretch:
    first, stop = torch.searchsorted(stretch.visual, torch.tensor([begin, end])).tolist()
    return Stretch(
        offset=offset,
        token_ids=stretch.token_ids[begin:end],
        positions=stretch.positions[:, begin:end],
        visual=stretch.visual[first:stop] - begin,
        rows=stretch.rows[first:stop],
    )
