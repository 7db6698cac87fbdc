"""Stage 3's part towards stage 1, played by a test: takes chunks, grants credits, ends the session."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocess.chunks.chunks import Chunk

WAIT_SECONDS = 30.0


@dataclass
class Recipient:
    """Collects the responses of one request, and grants credits as stage 3 would."""

    credits_directory: Path
    credits: int = 1000
    """Written as soon as the plan is there."""
    held_tokens: int | None = 0
    """The tokens of the prompt that it says to hold as soon as the plan is there; None: it does not say so yet."""
    ends: bool = True
    """Whether the session is ended when the last chunk is there."""
    chunks: list[tuple[dict[str, Any], Chunk]] = field(default_factory=list)
    heartbeats: int = 0
    error: str | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    pipe: int | None = None

    def send(self, header: str, chunk: Chunk) -> None:
        assert not self.finished.is_set(), "a response after the last"
        # After 64 digits of signature.
        values = json.loads(header[64:])
        if values["index"] is None:
            self.heartbeats += 1
            return
        if values["index"] == 0:
            self.pipe = os.open(self.credits_directory / values["session"], os.O_WRONLY | os.O_NONBLOCK)
        self.chunks.append((values, chunk))
        if "error" in values:
            self.error = values["error"]
            self.end()
            return
        if values["index"] == 1:
            if self.held_tokens is not None:
                self.hold(self.held_tokens)
            self.grant(self.credits)
        if values.get("last") and self.ends:
            self.end()

    def fail(self, message: str) -> None:
        self.error = message
        self.finished.set()

    def close(self) -> None:
        self.finished.set()

    def hold(self, tokens: int) -> None:
        assert self.pipe is not None
        os.write(self.pipe, b"=%d\n" % tokens)

    def grant(self, credits: int) -> None:
        assert self.pipe is not None
        os.write(self.pipe, b"+" * credits)

    def end(self, mark: bytes = b".") -> None:
        """`.` and end of file; without the mark, the death of stage 3."""
        assert self.pipe is not None
        os.write(self.pipe, mark)
        os.close(self.pipe)
        self.pipe = None

    def wait(self) -> Recipient:
        assert self.finished.wait(WAIT_SECONDS), "the request did not end"
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None
        return self


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
