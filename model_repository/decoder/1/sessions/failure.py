"""The error that ends a session."""

from __future__ import annotations

import time

from engines.errors import RequestError
from sessions.credits import Credits
from sessions.reply import Reply

# How long an error waits for stage 1 to end.
PATIENCE_SECONDS = 1.0


class Failure:
    """Tells the client when stage 1 has ended: an ensemble that is ended with an error while one of its stages is still
    at work leaves some kilobytes in Triton 2.51 for ever."""

    def __init__(self, reply: Reply, credits: Credits, error: RequestError) -> None:
        self._reply = reply
        self._credits = credits
        self._error = error
        self._deadline = time.monotonic() + PATIENCE_SECONDS

    def due(self) -> bool:
        return not self._credits.has_reader or time.monotonic() > self._deadline

    def tell(self) -> None:
        self._credits.close()
        self._reply.fail(self._error)
