"""A log that cannot be filled by saying the same again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

EVERY_SECONDS = 60.0
MOST_KINDS = 1000
"""The kinds of messages that are remembered; when there are more, all are forgotten."""


class OnceAMinute(logging.Filter):
    """Lets a message pass once in EVERY_SECONDS, with how many like it were left out since.

    Messages are alike whose text before formatting, and type of exception, are the same.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, record.msg, error)
        now = self._clock()
        with self._lock:
            said, left_out = self._said.get(kind, (None, 0))
            if said is not None and now - said < EVERY_SECONDS:
                self._said[kind] = (said, left_out + 1)
                return False
            if len(self._said) >= MOST_KINDS:
                self._said.clear()
            self._said[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out} more like it since the last time)"
            record.args = None
        return True


def keep_log_short() -> None:
    """Makes all that this package logs pass through OnceAMinute, once however often it is called."""
    log = logging.getLogger("preprocess")
    if any(isinstance(kept, OnceAMinute) for handler in log.handlers for kept in handler.filters):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(OnceAMinute())
    log.addHandler(handler)
