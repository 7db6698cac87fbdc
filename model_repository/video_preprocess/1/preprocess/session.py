"""One request from its inputs to its last heartbeat: what is sent, in which order, and how it ends."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from preprocess.cache.disk_cache import DiskCache
from preprocess.cache.speech import Transcriber
from preprocess.chunks.chunks import Chunk, data_chunks, empty_chunk, prompt_chunk
from preprocess.credits import Credits, SessionOver
from preprocess.errors import RequestError, UnavailableError, machine_resources
from preprocess.media.library import Library
from preprocess.plan.digests import patch_digests
from preprocess.plan.overview import overview
from preprocess.plan.plan import make_plan
from preprocess.plan.prompt import PromptWriter
from preprocess.request.request import Inputs, Limits, Request, parse_request
from preprocess.settings import Settings
from preprocess.signing import Signer
from preprocess.workers.pool import Workers
from preprocess.workers.reader import Reader

log = logging.getLogger(__name__)


class Sender(Protocol):
    """Where a request's responses go. Never called by two threads at once."""

    def send(self, header: str, chunk: Chunk) -> None: ...

    def fail(self, message: str) -> None:
        """The error is the last response."""

    def close(self) -> None:
        """No response follows."""


@dataclass(frozen=True)
class Stage:
    """The parts of the stage that all requests share."""

    settings: Settings
    writer: PromptWriter
    library: Library
    workers: Workers
    limits: Limits
    credits_directory: Path
    chunk_tokens: int
    cache: DiskCache | None = None
    transcriber: Transcriber | None = None

    def reader(self, request: Request, interrupt: Callable[[], None]) -> closing[Reader]:
        """Reads the request's media, closed at its end."""
        owner = request.cache_salt
        return closing(Reader(self.library, self.workers, interrupt, self.cache, owner, self.transcriber))


class Outbox:
    """Numbers and signs what a session sends, and sends heartbeats between: where responses of two threads meet."""

    def __init__(self, sender: Sender, session: str, heartbeat: Chunk, signer: Signer) -> None:
        self._sender = sender
        self.session = session
        self._heartbeat = heartbeat
        self._signer = signer
        self._lock = threading.Lock()
        self._next = 0
        self._sent = 0.0
        self._closed = False

    def send(self, chunk: Chunk, **header: Any) -> None:
        with self._lock:
            self._send(chunk, index=self._next, **header)
            self._next += 1

    def show(self, chunk: Chunk, **header: Any) -> None:
        """Sends what a client reads, with a header that is not signed: nothing for stage 3."""
        with self._lock:
            self._sender.send(json.dumps({"session": self.session, **header}), chunk)

    def beat(self, after_seconds: float) -> None:
        """Sends a heartbeat if a chunk was sent, but nothing for so long, and nothing is being sent right now."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._next and not self._closed and time.monotonic() - self._sent >= after_seconds:
                self._send(self._heartbeat, index=None)
        finally:
            self._lock.release()

    def close(self, error: str | None = None) -> None:
        with self._lock:
            self._closed = True
            if error is None:
                self._sender.close()
            else:
                self._sender.fail(error)

    def _send(self, chunk: Chunk, **header: Any) -> None:
        self._sent = time.monotonic()
        text = json.dumps({"session": self.session, "sent": self._sent, **header})
        self._sender.send(self._signer.signed(text, chunk.token_ids, chunk.positions), chunk)


def serve(inputs: Inputs, stage: Stage, outbox: Outbox, stopping: threading.Event) -> None:
    """Serves one request to its end, whatever that is; raises nothing."""
    try:
        # The FIFO is closed last: stage 3 takes its end for the end of this process, and would say so first.
        with ExitStack() as ending:
            try:
                request = parse_request(inputs, stage.limits)
                if request.look:
                    _look(request, stage, outbox, stopping)
                else:
                    with machine_resources():
                        credits = Credits(stage.credits_directory, outbox.session, stopping)
                    ending.callback(credits.close)
                    _run(request, stage, outbox, credits)
            except SessionOver:
                outbox.close()
            except RequestError as error:
                outbox.close(str(error))
            except Exception as error:
                outbox.close(_internal(error, outbox.session))
            else:
                outbox.close()
    except Exception:
        # Triton took back the request: there is nobody left to tell.
        log.exception("session %s could not be closed", outbox.session)


def _look(request: Request, stage: Stage, outbox: Outbox, stopping: threading.Event) -> None:
    with stage.reader(request, lambda: _check_running(stopping)) as reader:
        plan = make_plan(request, stage.settings, stage.writer, reader)
    outbox.show(empty_chunk(stage.settings), look=overview(plan, stage.settings))


def _run(request: Request, stage: Stage, outbox: Outbox, credits: Credits) -> None:
    """Once stage 3 has the session, it tells the client what went wrong here too: Triton 2.51 crashes when two stages
    of an ensemble end the same request with an error."""
    opening = {
        "stream": request.stream,
        "progress": request.progress,
        "sampling_parameters": request.sampling_parameters,
        "cache_salt": request.cache_salt,
    }
    outbox.send(empty_chunk(stage.settings), open=opening)
    try:
        with stage.reader(request, credits.check) as reader:
            _send_prompt(request, stage, reader, outbox, credits)
    except SessionOver:
        raise
    except Exception as error:
        credits.check()
        reason = str(error) if isinstance(error, RequestError) else _internal(error, outbox.session)
        outbox.send(empty_chunk(stage.settings), error=reason)
    credits.wait_until_over()


def _send_prompt(request: Request, stage: Stage, reader: Reader, outbox: Outbox, credits: Credits) -> None:
    started = time.monotonic()
    plan = make_plan(request, stage.settings, stage.writer, reader)
    planned = time.monotonic()
    digests = patch_digests(plan.selections, stage.settings.patching, reader)
    outbox.send(prompt_chunk(plan.prompt, stage.settings), plan={**plan.summary(stage.settings), "digests": digests})
    held_tokens = credits.held_tokens()
    decoding = time.monotonic()
    waited = 0.0
    for chunk in data_chunks(plan, stage.settings, reader, stage.chunk_tokens, held_tokens):
        ready = time.monotonic()
        credits.take()
        waited += time.monotonic() - ready
        if chunk.last:
            decode = time.monotonic() - decoding - waited
            seconds = {"plan": planned - started, "decode": decode, "waited": waited}
            outbox.send(chunk, begin=chunk.begin, last=True, seconds=seconds)
        else:
            outbox.send(chunk, begin=chunk.begin)


def _internal(error: Exception, session: str) -> str:
    log.error("session %s failed", session, exc_info=error)
    return f"internal: {type(error).__name__} in video_preprocess; the server's log has the details"


def _check_running(stopping: threading.Event) -> None:
    if stopping.is_set():
        raise UnavailableError("the server shuts down")


def new_session() -> str:
    return uuid.uuid4().hex
