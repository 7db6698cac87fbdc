"""How much of a planned prompt has come and was consumed: what credits are given for."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from engines.errors import invalid_argument
from engines.protocol import PromptPiece
from sessions.chunk import Plan


class Intake:
    """Compares what comes with the plan, and counts the credits that are due back to stage 1."""

    def __init__(self, plan: Plan, token_ids: NDArray[np.int32]) -> None:
        self.plan = plan
        self.held_tokens = 0
        self.prefilled_tokens = 0
        self._token_ids = token_ids
        self._fed_tokens = 0
        self._complete = False
        # Where in the prompt each chunk ends that is not consumed yet.
        self._ends: deque[int] = deque()

    def admit(self, held_tokens: int) -> None:
        """So many of the prompt's first tokens need not come."""
        self.held_tokens = held_tokens
        self.prefilled_tokens += held_tokens
        self._fed_tokens = max(self._fed_tokens, held_tokens)

    def add(self, piece: PromptPiece, index: int | None) -> None:
        """Counts chunk `index`. Raises invalid_argument where chunks and plan do not agree."""
        planned = self.plan.prompt_tokens
        if self._complete:
            raise invalid_argument(f"chunk {index} came after the last one")
        end = piece.begin + len(piece.token_ids)
        # Chunks follow one another; only the first may begin with tokens that are held.
        if piece.begin > self._fed_tokens or (piece.begin < self._fed_tokens and self._fed_tokens != self.held_tokens):
            raise invalid_argument(f"chunk {index} begins at token {piece.begin}; token {self._fed_tokens} is next")
        if end > planned or (piece.last and end < planned):
            raise invalid_argument(f"the prompt has {end} tokens with chunk {index}; planned are {planned}")
        if not np.array_equal(self._token_ids[piece.begin : end], piece.token_ids):
            raise invalid_argument(f"chunk {index} has other tokens than were planned")
        self._fed_tokens = max(end, self._fed_tokens)
        self._complete = piece.last
        self._ends.append(end)

    def credits_due(self) -> int:
        """Chunks that were consumed since the last call: each lets stage 1 send one more."""
        due = 0
        while self._ends and self._ends[0] <= self.prefilled_tokens:
            self._ends.popleft()
            due += 1
        return due
