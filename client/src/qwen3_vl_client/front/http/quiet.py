"""A log that whoever sends nonsense cannot fill: a line that repeats comes once a minute."""

from __future__ import annotations

import logging
import time
import traceback

_SECONDS = 60.0
_MAX_LINES = 256


class OncePerMinute(logging.Filter):
    """Lets each message through once a minute, with the number of those that were left out.

    Messages are the same if their first lines are, before their arguments are filled in, and if they tell of errors of
    one kind from one place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, tuple[float, int]] = {}
        """By line: when it was let through, and how often it came since."""

    def filter(self, record: logging.LogRecord) -> bool:
        line = f"{str(record.msg).partition(chr(10))[0]} {_place(record)}"
        now = time.monotonic()
        since, left_out = self._said.get(line, (-_SECONDS, 0))
        if now - since < _SECONDS:
            self._said[line] = (since, left_out + 1)
            return False
        if line not in self._said and len(self._said) >= _MAX_LINES:
            del self._said[next(iter(self._said))]
        self._said[line] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} (and {left_out} times more since the last such line)"
        return True


def _place(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__


def quieten(*names: str) -> None:
    """Gives each of these loggers such a filter, once."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(each, OncePerMinute) for each in logger.filters):
            logger.addFilter(OncePerMinute())
