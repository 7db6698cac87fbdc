"""Attacks, and the list of all that are known."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from perf.attack.expect import GotThroughError, NotRunError
from perf.attack.field import Field

Run = Callable[[Field], str]
"""Tells in words what happened. Raises GotThroughError where that is not what is expected."""
LastingRun = Callable[[Field], Generator[None, None, str]]
"""Likewise; between its beginning and its end the other attacks run."""


@dataclass(frozen=True)
class Attack:
    """door: what is attacked. expects: how the stack should take it. needs: attributes of the stack that must not be
    None, e.g. `page`."""

    name: str
    door: str
    expects: str
    needs: tuple[str, ...]
    run: Run | LastingRun
    lasting: bool


@dataclass(frozen=True)
class Result:
    """held: None where the attack was not run."""

    attack: Attack
    told: str
    held: bool | None
    seconds: float


TABLE: list[Attack] = []
TOLD_CHARACTERS = 300


def attack(door: str, name: str, *, expects: str, needs: tuple[str, ...] = ()) -> Callable[[Run], Run]:
    """Puts a function into the table."""

    def register(run: Run) -> Run:
        TABLE.append(Attack(name, door, expects, needs, run, lasting=False))
        return run

    return register


def lasting_attack(
    door: str, name: str, *, expects: str, needs: tuple[str, ...] = ()
) -> Callable[[LastingRun], LastingRun]:
    """Puts a generator into the table. It yields once, when it has begun; what follows runs after all others."""

    def register(run: LastingRun) -> LastingRun:
        TABLE.append(Attack(name, door, expects, needs, run, lasting=True))
        return run

    return register


def chosen(pattern: str) -> list[Attack]:
    """The attacks whose door and name match the regular expression, in the table's order."""
    return [one for one in TABLE if re.search(pattern, f"{one.door}: {one.name}", re.IGNORECASE)]


def outcome(attack: Attack, run: Callable[[], str]) -> Result:
    """Runs it. An error of the attack's own counts as got through: the stack did something unforeseen."""
    started = time.monotonic()
    held = True
    try:
        told = run()
    except NotRunError as error:
        return Result(attack, f"not run: {error}", None, 0.0)
    except GotThroughError as error:
        told, held = str(error), False
    except Exception as error:
        told, held = f"{type(error).__name__}: {error}", False
    # What was answered may have lines of its own; here it is one line of a table.
    return Result(attack, " ".join(told.split())[:TOLD_CHARACTERS], held, time.monotonic() - started)
