"""The cost of a piece of a prompt, in tokens of a step."""

from __future__ import annotations

from math import isqrt

ORDINARY_CONTEXT = 4096
"""Tokens. Attention to a context of this length or less costs nothing extra; to one of n times as many, a token costs
as much as n. A step of many tokens then takes about as long deep in a prompt as at its beginning."""


def cost(tokens: int, cached: int) -> int:
    """The cost of the next `tokens` tokens of a prompt, after `cached` ones."""
    return max(tokens, -(-tokens * (cached + tokens) // ORDINARY_CONTEXT))


def affordable_tokens(budget: int, cached: int) -> int:
    """The most tokens after `cached` ones that cost no more than `budget`.

    The largest t with t <= budget and t * (cached + t) <= budget * ORDINARY_CONTEXT, which is
    t <= (sqrt(cached² + 4 * budget * ORDINARY_CONTEXT) - cached) / 2.
    """
    return min(budget, (isqrt(cached**2 + 4 * budget * ORDINARY_CONTEXT) - cached) // 2)
