"""A prompt as it comes, until it is whole: TensorRT-LLM takes all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from engines.protocol import PromptPiece


@dataclass(frozen=True)
class Run:
    """Neighbouring visual tokens, the rows of one temporal patch or image: where they begin and how many they are."""

    begin: int
    tokens: int


@dataclass
class CollectedPrompt:
    """Pieces in order, rows in the decoder's own precision: half the memory of what stage 2 sends."""

    visual_token_ids: tuple[int, ...]
    dtype: torch.dtype
    token_ids: list[NDArray[np.int32]] = field(default_factory=list)
    positions: list[NDArray[np.int32]] = field(default_factory=list)
    rows: list[torch.Tensor] = field(default_factory=list)

    def add(self, piece: PromptPiece) -> None:
        """Takes the next piece over."""
        self.token_ids.append(piece.token_ids)
        self.positions.append(piece.positions)
        # A copy, alone in its memory: a handle shares all the memory that a tensor is a part of.
        self.rows.append(piece.rows.to("cpu", self.dtype, copy=True))

    def all_token_ids(self) -> NDArray[np.int32]:
        """int32 [tokens]"""
        return np.concatenate(self.token_ids)

    def all_positions(self) -> NDArray[np.int32]:
        """int32 [3, tokens]"""
        return np.concatenate(self.positions, axis=1)

    def pieces_with_rows(self) -> Iterator[tuple[list[Run], torch.Tensor]]:
        """For every piece with pictures: its runs, by their places in the whole prompt, and its rows."""
        offset = 0
        for token_ids, rows in zip(self.token_ids, self.rows, strict=True):
            if len(rows):
                yield [Run(offset + run.begin, run.tokens) for run in self._runs(token_ids)], rows
            offset += len(token_ids)

    def _runs(self, token_ids: NDArray[np.int32]) -> list[Run]:
        visual = np.isin(token_ids, self.visual_token_ids).astype(np.int8)
        borders = np.flatnonzero(np.diff(visual, prepend=0, append=0))
        return [Run(int(begin), int(end - begin)) for begin, end in borders.reshape(-1, 2)]
