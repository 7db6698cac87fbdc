"""In the place of the decoder's `engines/create.py`."""

from __future__ import annotations

import os
import queue
import threading
import time

from engines.protocol import Admitted, Engine, EngineState, Listener, Prefilled, PromptPiece, Request, Tokens
from engines.settings import Settings


class PacedEngine:
    """Sleeps for as long as a device would prefill, one piece after the other; an answer is one token."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._seconds_per_token = float(os.environ["PACED_PREFILL_SECONDS_PER_TOKEN"])
        self._pieces: queue.SimpleQueue[tuple[str, PromptPiece] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def open(self, session: str, request: Request) -> None:
        self._listener(session, Admitted())

    def feed(self, session: str, piece: PromptPiece) -> None:
        self._pieces.put((session, piece))

    def cancel(self, session: str) -> None:
        pass

    def state(self) -> EngineState:
        return EngineState(blocks_total=1, blocks_free=1, blocks_cached=0, sessions=0, waiting=0)

    def close(self) -> None:
        self._pieces.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (fed := self._pieces.get()) is not None:
            session, piece = fed
            time.sleep(len(piece.token_ids) * self._seconds_per_token)
            self._listener(session, Prefilled(len(piece.token_ids)))
            if piece.last:
                self._listener(session, Tokens((1,), "length"))


def create_engine(settings: Settings, listener: Listener) -> Engine:
    return PacedEngine(listener)
