"""Keys of a sequence's blocks: the prefix cache compares them."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from engines.protocol import Request

# Token id, three positions, and the 128 bits of the digest of what is seen there.
WIDTH = 8


def root(cache_salt: str) -> bytes:
    """All names of an owner's blocks follow from it; it is never the name of a block itself."""
    return hashlib.blake2b(cache_salt.encode(), digest_size=16, person=b"cache_salt").digest() if cache_salt else b""


class BlockKeys:
    """Rows int32 [tokens, 8], and a name for each full block that follows from its owner and all rows up to its end.

    Two tokens with the same row and the same rows before them have the same keys and values.
    """

    def __init__(self, request: Request, visual_token_ids: tuple[int, ...], max_tokens: int, block_size: int) -> None:
        tokens = request.prompt_tokens
        # Memory of rows that are never written is never touched.
        self._rows = np.zeros((tokens + max_tokens, WIDTH), np.int32)
        self._rows[:tokens, 0] = request.token_ids
        self._rows[:tokens, 1:4] = request.positions.T
        visual = np.isin(request.token_ids, visual_token_ids)
        run = np.cumsum(visual & ~np.append(False, visual[:-1])) - 1
        digests = np.frombuffer(bytes.fromhex("".join(request.digests)), np.int32).reshape(-1, WIDTH - 4)
        self._rows[:tokens][visual, 4:] = digests[run[visual]]
        self._root = root(request.cache_salt)
        self._tokens = tokens
        self._block_size = block_size
        self._names: list[bytes] = []

    def append(self, token_id: int, position: int) -> None:
        """Adds a generated token."""
        self._rows[self._tokens, :4] = (token_id, position, position, position)
        self._tokens += 1

    def name(self, block: int) -> bytes:
        """The name of the full block with this index; the owner's root stands before the first."""
        while len(self._names) <= block:
            rows = self.rows(len(self._names), self._block_size)
            before = self._names[-1] if self._names else self._root
            self._names.append(hashlib.blake2b(before + rows.tobytes(), digest_size=16).digest())
        return self._names[block] if block >= 0 else self._root

    def rows(self, block: int, tokens: int) -> NDArray[np.int32]:
        """The rows of the first `tokens` tokens of a block."""
        begin = block * self._block_size
        return self._rows[begin : begin + tokens]
