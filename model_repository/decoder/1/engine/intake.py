"""How much of a planned prompt has come and was consumed: what credits are given for."""

from __future__ import annotations

from collections import deque

from engine.chunk import Plan
from engine.errors import invalid_argument
from engine.protocol import PromptPiece


class Intake:
    """Compares what comes with the plan, and counts the credits that are due back to stage 1."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.prefilled_tokens = 0
        self._fed_tokens = 0
        self._complete = False
        # Where in the prompt each chunk ends that is not consumed yet.
        self._ends: deque[int] = deque()

    def add(self, piece: PromptPiece, index: int | None) -> None:
        """Counts chunk `index`. Raises invalid_argument where chunks and plan do not agree."""
        planned = self.plan.prompt_tokens
        if self._complete:
            raise invalid_argument(f"chunk {index} came after the last one")
        self._fed_tokens += len(piece.token_ids)
        self._complete = piece.last
        if self._fed_tokens > planned or (piece.last and self._fed_tokens < planned):
            raise invalid_argument(
                f"the prompt has {self._fed_tokens} tokens with chunk {index}; planned are {planned}"
            )
        self._ends.append(self._fed_tokens)

    def credits_due(self) -> int:
        """Chunks that were consumed since the last call: each lets stage 1 send one more."""
        due = 0
        while self._ends and self._ends[0] <= self.prefilled_tokens:
            self._ends.popleft()
            due += 1
        return due
