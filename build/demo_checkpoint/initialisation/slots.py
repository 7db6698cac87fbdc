"""The dimensions of the hidden state that carry what an answer needs: a time's digits, a thing's attributes, marks."""

from __future__ import annotations

from build.demo_checkpoint.attributes import READOUTS

PLACES = ("tenths", "ones", "tens", "hundreds")
"""The digits of a time, from its last one on."""
ACTIVE = 2.0
"""How strongly a dimension says yes."""


def _slots() -> dict[str, slice]:
    slots, start = {}, 0
    sizes = {"digit": 10, "time": 10 * len(PLACES), "found time": 10 * len(PLACES)}
    sizes |= {name: classes for name, (_, classes) in READOUTS.items()}
    sizes |= {f"found {name}": classes for name, (_, classes) in READOUTS.items()} | {"background": 6}
    # What a token is: anything, a picture's, a unit of time, the last word of a thing's name, the start of a turn, the
    # start of an answer, after the start of an answer; "from" and "to", and after them.
    sizes |= dict.fromkeys(("any", "visual", "unit", "name", "turn", "answer", "answering"), 1)
    sizes |= dict.fromkeys(("from", "to", "first", "last"), 1)
    # The start of a number, right after it, the point in it; the digit to say next.
    sizes |= dict.fromkeys(("start", "started", "point"), 1) | {"say": 10}
    # A word of a question, the start of a picture; where a picture's cell is.
    sizes |= dict.fromkeys(("asking", "picture", "row", "column", "found row", "found column"), 1)
    # The word itself, the one before, and those of the question, mixed.
    sizes |= dict.fromkeys(("text", "previous", "question"), 41)
    # The time at which a scene begins.
    sizes |= {"scene's start": 10 * len(PLACES)}
    for name, size in sizes.items():
        slots[name] = slice(start, start + size)
        start += size
    first, *_, last = READOUTS
    for found in ("", "found "):
        slots[f"{found}thing"] = slice(slots[f"{found}{first}"].start, slots[f"{found}{last}"].stop)
        time = slots[f"{found}time"].start
        for place, name in enumerate(PLACES):
            slots[f"{found}time {name}"] = slice(time + 10 * place, time + 10 * (place + 1))
    return slots


SLOTS = _slots()
"""Some are parts of others: "thing" is all of its attributes, and "time" all of its places, as "time tens"."""


def slot_of(name: str, index: int) -> int:
    """One dimension of a slot."""
    return SLOTS[name].start + index
