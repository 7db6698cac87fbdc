"""Grammars are compiled by a thread of their own: neither sessions nor the engine's steps wait for one."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engines.errors import RequestError, invalid_argument
from engines.fair_queue import COMMON
from engines.protocol import Failed, Listener
from engines.pytorch.grammar.grammar import Grammar, GrammarError, load_tokens
from engines.pytorch.grammar.trial import GrammarTrial
from engines.response_format import ResponseFormat

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    session: str
    wanted: ResponseFormat
    then: Callable[[Grammar], None]


class GrammarCompiler:
    """Compiles one grammar after the other; what it needs for that is made for the first one.

    Owners take turns: one who sends many grammars waits for those, and others wait for one of them at most.
    """

    def __init__(
        self,
        tokenizer: Path,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        *,
        max_waiting: int,
        listener: Listener,
    ) -> None:
        self._max_waiting = max_waiting
        self._listener = listener
        self._tokens = functools.cache(functools.partial(load_tokens, tokenizer, vocab_size, eos_token_ids))
        self._trial = GrammarTrial(tokenizer, vocab_size, eos_token_ids)
        # The owners of the sessions that wait, and of the one whose grammar is being compiled.
        self._sessions: dict[str, str] = {}
        # By owner: the first is next, unless it was the last.
        self._waiting: dict[str, deque[_Job]] = {}
        self._last_owner: str | None = None
        self._knows_owners = False
        """Whether a request had a cache_salt: without any, those that have none may fill all places."""
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammars")

    def start(self, session: str, owner: str, wanted: ResponseFormat, then: Callable[[Grammar], None]) -> None:
        """Calls `then` with the session's grammar, from the compiler's thread, unless the session is cancelled before.

        What goes wrong later, in `then` too, is reported to the listener. Raises resource_exhausted when too many wait,
        or half as many of one owner; all without a cache_salt are one owner's, once there are others.
        """
        with self._lock:
            if len(self._sessions) > self._max_waiting:
                raise _too_many(len(self._sessions), "requests")
            self._knows_owners |= owner != COMMON
            held = sum(other == owner for other in self._sessions.values())
            if self._knows_owners and held > self._max_waiting // 2:
                whose = "requests of this owner" if owner != COMMON else "requests without a cache_salt"
                raise _too_many(held, whose)
            self._sessions[session] = owner
            self._waiting.setdefault(owner, deque()).append(_Job(session, wanted, then))
        self._pool.submit(self._run_next)

    def cancel(self, session: str) -> None:
        """Forgets the session; `then` is not called any more when this returns."""
        with self._lock:
            self._sessions.pop(session, None)

    def close(self) -> None:
        """Returns when the grammar that is being compiled is done."""
        self._pool.shutdown(cancel_futures=True)
        self._trial.close()

    def _run_next(self) -> None:
        """One job, as many as there are calls of this."""
        with self._lock:
            owner = next((owner for owner in self._waiting if owner != self._last_owner), self._last_owner)
            assert owner is not None
            self._last_owner = owner
            jobs = self._waiting.pop(owner)
            job = jobs.popleft()
            if jobs:
                # Behind all others.
                self._waiting[owner] = jobs
        self._run(job.session, job.wanted, job.then)

    def _run(self, session: str, wanted: ResponseFormat, then: Callable[[Grammar], None]) -> None:
        if session not in self._sessions:
            return
        try:
            grammar = self._compile(wanted)
            with self._lock:
                if session in self._sessions:
                    then(grammar)
        except RequestError as error:
            self._fail(session, Failed(error.code, error.message))
        except Exception as error:
            logger.exception("the grammar of session %s failed", session)
            self._fail(session, Failed("internal", f"the grammar failed: {type(error).__name__}: {error}"))
        finally:
            self.cancel(session)

    def _compile(self, wanted: ResponseFormat) -> Grammar:
        try:
            self._trial.run(wanted)
            return Grammar(self._tokens(), wanted)
        except GrammarError as error:
            raise invalid_argument(f"sampling_parameters.response_format cannot be used: {error}") from None

    def _fail(self, session: str, failed: Failed) -> None:
        with self._lock:
            if session in self._sessions:
                self._listener(session, failed)


def _too_many(count: int, whose: str) -> RequestError:
    return RequestError(
        "resource_exhausted", f"{count} {whose} are waiting for their response_format and no more may; try again later"
    )
