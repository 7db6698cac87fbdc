"""Logits of answers that follow a grammar: tokens that must not come next are ruled out."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from llguidance import LLExecutor
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par

from engines.errors import invalid_argument
from engines.pytorch.grammar.grammar import Grammar, GrammarError
from engines.pytorch.transfer import to_device


def constrain(logits: torch.Tensor, grammars: Sequence[Grammar | None]) -> None:
    """Sets the logits [rows, vocabulary] of forbidden tokens to -inf, in place; rows without a grammar stay.

    Raises invalid_argument where a grammar has become too complex to follow.
    """
    constrained = [(row, grammar) for row, grammar in enumerate(grammars) if grammar is not None]
    if not constrained:
        return
    vocabulary = logits.shape[1]
    bits = allocate_token_bitmask(len(constrained), vocabulary)
    # In parallel and without the interpreter's lock; on a GPU the model's step is still under way meanwhile.
    fill_next_token_bitmask_par(
        _executor(), [(grammar.matcher, index) for index, (_, grammar) in enumerate(constrained)], bits
    )
    for _, grammar in constrained:
        try:
            grammar.check()
        except GrammarError as error:
            raise invalid_argument(f"sampling_parameters.response_format cannot be followed: {error}") from None
    allowed = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :vocabulary].astype(bool)
    rows = to_device(torch.tensor([row for row, _ in constrained]), logits.device)
    forbidden = to_device(torch.from_numpy(~allowed), logits.device)
    logits[rows] = logits[rows].masked_fill(forbidden, float("-inf"))


@functools.cache
def _executor() -> LLExecutor:
    return LLExecutor()
