"""The part of a prompt that has arrived and is not in the KV cache yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.protocol import PromptPiece


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


class Prompt:
    """Pieces in order. Token ids and positions stay on the host, rows go to the device in the model's type at once."""

    def __init__(self, visual_token_ids: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        self._visual_token_ids = torch.tensor(visual_token_ids)
        self._device = device
        self._dtype = dtype
        self._pieces: deque[Stretch] = deque()
        self.available = 0

    def append(self, piece: PromptPiece) -> None:
        """Adds a piece, copied: the caller may reuse its memory."""
        token_ids = torch.tensor(piece.token_ids, dtype=torch.long)
        if not len(token_ids):
            return
        self._pieces.append(
            Stretch(
                offset=0,
                token_ids=token_ids,
                positions=torch.tensor(piece.positions, dtype=torch.long),
                visual=torch.isin(token_ids, self._visual_token_ids).nonzero().squeeze(1),
                rows=torch.tensor(piece.rows, dtype=self._dtype, device=self._device),
            )
        )
        self.available += len(token_ids)

    def read(self, tokens: int) -> Iterator[Stretch]:
        """The next `tokens` tokens, piece by piece."""
        offset = 0
        for piece in self._pieces:
            if offset == tokens:
                return
            count = min(tokens - offset, len(piece.token_ids))
            yield _cut(piece, 0, count, offset)
            offset += count

    def drop(self, tokens: int) -> None:
        """Forgets the next `tokens` tokens and the memory of pieces that are used up."""
        self.available -= tokens
        while tokens:
            piece = self._pieces.popleft()
            count = len(piece.token_ids)
            if tokens < count:
                self._pieces.appendleft(_cut(piece, tokens, count, 0))
                return
            tokens -= count


def _cut(piece: Stretch, begin: int, end: int, offset: int) -> Stretch:
    first, stop = torch.searchsorted(piece.visual, torch.tensor([begin, end])).tolist()
    return Stretch(
        offset=offset,
        token_ids=piece.token_ids[begin:end],
        positions=piece.positions[:, begin:end],
        visual=piece.visual[first:stop] - begin,
        rows=piece.rows[first:stop],
    )
