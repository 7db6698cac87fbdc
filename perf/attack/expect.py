"""How an attack says what happened: it got through, or it could not be tried."""

from __future__ import annotations


class GotThroughError(Exception):
    """An attack did what it should not have been able to do. The message says what."""


class NotRunError(Exception):
    """An attack cannot be tried here. The message says why."""


def expect(condition: bool, told: str) -> None:
    """Raises GotThroughError with these words unless the condition holds."""
    if not condition:
        raise GotThroughError(told)
