"""The sequences' blocks on the device, as attention by table reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.pytorch.transfer import to_device


@dataclass(frozen=True)
class TableContext:
    """The contexts of the first tokens of a batch, a token of each sequence."""

    tables: torch.Tensor
    """int32 [rows, blocks of the longest sequence], numbers of blocks in the flat cache."""
    rows: torch.Tensor
    """int64 [sequences], each one's row in `tables`."""
    lengths: torch.Tensor
    """int64 [sequences], tokens that it sees, itself included; at least 1."""
    block_size: int
    """Tokens."""

    @property
    def slots(self) -> torch.Tensor:
        """int64 [sequences], the place of each one's newest token in the flat cache."""
        block, offset = (self.lengths - 1) // self.block_size, (self.lengths - 1) % self.block_size
        return self.tables[self.rows, block].long() * self.block_size + offset


class BlockTables:
    """A row for each sequence that runs: its blocks in the order of its tokens, which stay the same while it runs."""

    def __init__(self, sequences: int, blocks: int, block_size: int, device: torch.device) -> None:
        self._tables = torch.zeros((sequences, blocks), dtype=torch.int32, device=device)
        self._block_size = block_size
        self._device = device
        self._free = list(range(sequences))

    def add(self, blocks: tuple[int, ...]) -> int:
        """The row that has them until it is removed."""
        row = self._free.pop()
        self._tables[row, : len(blocks)] = to_device(torch.tensor(blocks, dtype=torch.int32), self._device)
        return row

    def remove(self, row: int) -> None:
        """Gives a row back. A step under way may still read it: what changes it next comes after, on the device."""
        self._free.append(row)

    def context(self, rows: torch.Tensor, lengths: torch.Tensor) -> TableContext:
        return TableContext(self._tables, rows, lengths, self._block_size)
