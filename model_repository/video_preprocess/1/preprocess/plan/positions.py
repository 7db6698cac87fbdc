"""M-RoPE: the three positions (time, row, column) of every token of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class VisualRun:
    """The visual tokens of one temporal patch: `rows` x `columns` of them from the prompt's token `start` on."""

    start: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    @property
    def end(self) -> int:
        return self.start + self.tokens


def mrope_positions(tokens: int, runs: Sequence[VisualRun]) -> tuple[npt.NDArray[np.int32], int]:
    """Positions [3, tokens] and the position of the first generated token, as `Qwen3VLModel.get_rope_index` has them.

    Text advances by one in all three. A temporal patch stands still in time, counts rows and columns from where it
    begins, and advances by the larger side.
    """
    positions = np.empty((3, tokens), np.int32)
    cursor = position = 0
    for run in runs:
        text = run.start - cursor
        positions[:, cursor : run.start] = position + np.arange(text)
        position += text
        grid = np.indices((1, run.rows, run.columns)).reshape(3, -1)
        positions[:, run.start : run.end] = position + grid
        position += max(run.rows, run.columns)
        cursor = run.end
    positions[:, cursor:] = position + np.arange(tokens - cursor)
    return positions, position + tokens - cursor
