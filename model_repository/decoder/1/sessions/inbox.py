"""All sessions: one thread that owns them, and the inbox through which everyone else talks to them."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeAlias

from engines.errors import RequestError
from engines.protocol import Event
from sessions.chunk import Chunk
from sessions.failure import Failure
from sessions.reply import Reply, Response
from sessions.session import Services, Session

logger = logging.getLogger(__name__)

# How often sessions are checked for silence, the end of stage 1 and the time limit.
CHECK_SECONDS = 0.2
# How often it is looked whether stage 1 has ended after an error: a client waits for it.
FAILURE_CHECK_SECONDS = 0.005
# Chunks may still be under way to a session that is over: its name is remembered among this many.
REMEMBERED_SESSIONS = 4096


@dataclass(frozen=True)
class ChunkArrived:
    chunk: Chunk
    reply: Reply


@dataclass(frozen=True)
class StopAsked:
    """A client wants the requests with this id to end."""

    request_id: str
    reply: Reply


@dataclass(frozen=True)
class StateAsked:
    """Someone wants to know the engine's state, and that sessions are looked after."""

    reply: Reply


@dataclass(frozen=True)
class EngineSpoke:
    session: str
    event: Event


@dataclass(frozen=True)
class Closed:
    """Stage 3 is being unloaded."""


Message: TypeAlias = ChunkArrived | StopAsked | StateAsked | EngineSpoke | Closed
Inbox: TypeAlias = "queue.SimpleQueue[Message]"


class Sessions:
    """Handles the inbox's messages in order. Text that is ready at the same time is sent together."""

    def __init__(self, services: Services, inbox: Inbox) -> None:
        self._services = services
        self._inbox = inbox
        self._sessions: dict[str, Session] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._failures: list[Failure] = []
        self._next_check = 0.0
        self._newest = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="sessions", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends every session and the thread."""
        self._inbox.put(Closed())
        self._thread.join()

    def _loop(self) -> None:
        while not self._closed:
            for message in self._messages():
                try:
                    self._handle(message)
                except Exception:
                    logger.exception("a %s was not handled", type(message).__name__)
            now = time.monotonic()
            due = now >= self._next_check
            if due:
                self._next_check = now + CHECK_SECONDS
            for session in list(self._sessions.values()):
                with self._guard(session):
                    session.flush()
                    if due:
                        session.check(now, self._newest)
            self._tell([failure for failure in self._failures if failure.due()])
        for session in list(self._sessions.values()):
            with self._guard(session):
                session.fail(RequestError("unavailable", "the decoder is being unloaded"))
        self._tell(self._failures)

    def _tell(self, failures: list[Failure]) -> None:
        self._failures = [failure for failure in self._failures if failure not in failures]
        for failure in failures:
            try:
                failure.tell()
            except Exception:
                logger.exception("a client could not be told of an error")

    def _messages(self) -> Iterator[Message]:
        """The messages in the inbox; waits for the first, but not longer than to the next check."""
        try:
            idle_seconds = CHECK_SECONDS if self._sessions else None
            yield self._inbox.get(timeout=FAILURE_CHECK_SECONDS if self._failures else idle_seconds)
        except queue.Empty:
            return
        for _ in range(self._inbox.qsize()):
            yield self._inbox.get_nowait()

    def _handle(self, message: Message) -> None:
        match message:
            case ChunkArrived(chunk, reply):
                self._receive(chunk, reply)
            case EngineSpoke(name, event):
                if (session := self._sessions.get(name)) is not None:
                    with self._guard(session):
                        session.hear(event, time.monotonic())
            case StopAsked(request_id, reply):
                stopped = [s for s in self._sessions.values() if request_id and s.request_id == request_id]
                for session in stopped:
                    with self._guard(session):
                        session.finish("cancelled", time.monotonic())
                reply.send(Response(finish_reason="cancelled" if stopped else ""), final=True)
            case StateAsked(reply):
                reply.send(Response(usage=json.dumps(asdict(self._services.engine.state()))), final=True)
            case Closed():
                self._closed = True

    def _receive(self, chunk: Chunk, reply: Reply) -> None:
        name = chunk.header.session
        session = self._sessions.get(name)
        if session is None:
            if name in self._ended or chunk.header.index is None:
                reply.close()
                return
            session = self._sessions[name] = Session(name, chunk.request_id, self._services)
        with self._guard(session):
            session.receive(chunk, reply)
            # Only chunks of opened sessions count, and no clock that is ahead: both could end other sessions.
            self._newest = max(self._newest, min(chunk.header.sent, chunk.arrived))

    @contextmanager
    def _guard(self, session: Session) -> Iterator[None]:
        """Around whatever is done to a session: an error ends this session and no other."""
        try:
            yield
        except RequestError as error:
            self._fail(session, error)
        except Exception as error:
            logger.exception("session %s failed", session.name)
            self._fail(session, RequestError("internal", f"{type(error).__name__}: {error}"))
        if session.over:
            self._sessions.pop(session.name, None)
            self._ended[session.name] = None
            if session.failure is not None:
                self._failures.append(session.failure)
            if len(self._ended) > REMEMBERED_SESSIONS:
                self._ended.popitem(last=False)

    def _fail(self, session: Session, error: RequestError) -> None:
        try:
            session.fail(error)
        except Exception:
            logger.exception("the client of session %s could not be told: %s", session.name, error)
