"""Ids by which HTTP requests can be stopped when their client has gone: Triton does not tell its stages of that.

Stage 3 stops no request by an id that others might guess. A request with such an id, or with none, travels under one of
the gate's; what is answered carries the client's own again.
"""

from __future__ import annotations

import json
import secrets

from starlette.types import Message, Send

STOPPABLE_CHARACTERS = 16

_EVENT_END = b"\n\n"


class StoppableId:
    """The id of one request. `travelling` is the one that Triton sees."""

    def __init__(self, given: str) -> None:
        self._given = given
        self.travelling = given if len(given) >= STOPPABLE_CHARACTERS else secrets.token_hex(STOPPABLE_CHARACTERS)

    def answers_to(self, send: Send) -> Send:
        """Hands on what is answered, under the client's own id. A request without one is told the gate's."""
        if self._given in ("", self.travelling):
            return send
        sought, own = self.travelling.encode(), json.dumps(self._given)[1:-1].encode()
        pending = b""

        async def renamed(message: Message) -> None:
            nonlocal pending
            if message["type"] == "http.response.start":
                # The answer's length changes.
                headers = [(name, value) for name, value in message["headers"] if name != b"content-length"]
                await send({**message, "headers": headers})
                return
            pending += message["body"]
            # An id may be cut in two, but never by the end of an event.
            if not message["more_body"] or pending.endswith(_EVENT_END):
                body, pending = pending.replace(sought, own), b""
                await send({**message, "body": body})

        return renamed
