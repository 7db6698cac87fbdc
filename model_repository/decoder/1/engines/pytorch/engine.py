"""The engine: one thread that admits, has a step computed for everyone, and reports."""

from __future__ import annotations

import logging
import threading
from collections import deque

import torch

from engines.admission import Admission
from engines.errors import RequestError
from engines.protocol import Admitted, EngineState, Failed, Listener, Prefilled, PromptPiece, Request, Tokens
from engines.pytorch.cache.block_keys import BlockKeys
from engines.pytorch.grammar.compiler import GrammarCompiler
from engines.pytorch.grammar.grammar import Grammar
from engines.pytorch.runner import ModelRunner, Step
from engines.pytorch.scheduler import Scheduler
from engines.pytorch.sequence import Sequence
from engines.pytorch.work import Work

logger = logging.getLogger(__name__)


class PyTorchEngine:
    """In-flight batching over a paged KV cache; implements engines.protocol.Engine.

    `_lock` guards sequences and the scheduler; a step computes outside of it, on sequences that only the engine's
    thread removes, so that memory which a step writes to is never given to someone else meanwhile.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        admission: Admission[Sequence],
        grammars: GrammarCompiler,
        listener: Listener,
        *,
        lag: int,
    ) -> None:
        """lag: steps that are launched before it is known what the one before them generated."""
        self._runner = runner
        self._scheduler = scheduler
        self._admission = admission
        self._grammars = grammars
        self._listener = listener
        self._lag = lag
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._computing: deque[Step] = deque()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread that computes steps."""
        self._thread.start()

    def open(self, session: str, request: Request) -> None:
        """Queues a session for KV blocks, when its grammar is compiled if it has one.

        Raises invalid_argument for a prompt that can never fit and resource_exhausted when the queue is full; a session
        that waits for its grammar gets these by `Failed`.
        """
        wanted = request.sampling.response_format
        if wanted is None:
            self._enter(session, request, None)
        else:
            self._grammars.start(
                session, request.cache_salt, wanted, lambda grammar: self._enter(session, request, grammar)
            )

    def _enter(self, session: str, request: Request, grammar: Grammar | None) -> None:
        stop, block_size = self._admission.stop_conditions(request), self._runner.cache.block_size
        sequence = Sequence(
            session,
            request,
            max_tokens=stop.max_tokens,
            stop_token_ids=frozenset(stop.token_ids),
            counts=self._runner.token_counts(request),
            block_keys=BlockKeys(request, self._runner.config.visual_token_ids, stop.max_tokens, block_size),
            grammar=grammar,
        )
        # Outside of the lock: a long prompt has many names.
        sequence.block_keys.name(request.prompt_tokens // block_size - 1)
        with self._lock:
            self._admission.enter(sequence, self._admit)
            self._changed.notify()

    def feed(self, session: str, piece: PromptPiece) -> None:
        """Adds a piece to the session's prompt."""
        # Outside of the lock: the rows of a chunk are megabytes.
        span = self._runner.to_span(piece)
        with self._lock:
            sequence = self._admission.sessions.get(session)
            if sequence is None:
                return
            sequence.prompt.append(span, piece.begin)
            self._changed.notify()

    def cancel(self, session: str) -> None:
        """Forgets the session; its blocks are free after the step that is being computed."""
        self._grammars.cancel(session)
        with self._lock:
            sequence = self._admission.sessions.pop(session, None)
            if sequence is None:
                return
            sequence.cancelled = True
            if sequence in self._admission.queue:
                self._scheduler.remove(sequence)
                self._admission.tell_places()
            self._changed.notify()

    def state(self) -> EngineState:
        with self._lock:
            blocks, queue = self._scheduler.blocks, self._admission.queue
            return EngineState(blocks.total, blocks.available, blocks.cached, queue.running, queue.waiting)

    def close(self) -> None:
        """Ends the thread after the step that is being computed."""
        self._grammars.close()
        with self._lock:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while not self._closed:
            if not self.step():
                with self._lock:
                    while not (self._closed or self._next_step()):
                        self._changed.wait()

    @torch.inference_mode()
    def step(self) -> bool:
        """Computes a step for everyone and reports the one that is due; whether there was anything to do."""
        with self._lock:
            work = self._next_step()
        if work:
            self._computing.extend(self._launch(work))
        busy = bool(self._computing)
        while len(self._computing) > (self._lag if work else 0):
            self._finish(self._computing.popleft())
        return busy

    def _next_step(self) -> list[Work]:
        for sequence in [s for s in self._scheduler.running if s.cancelled]:
            self._forget(sequence)
        self._admit()
        self._admission.tell_places()
        return self._scheduler.next_step()

    def _admit(self) -> None:
        while admitted := self._scheduler.admit():
            sequence, reservation = admitted
            self._runner.copy_held(reservation)
            self._listener(sequence.session, Admitted(reservation.held_tokens))

    def _launch(self, work: list[Work]) -> list[Step]:
        """Has the device compute a step, and takes it as done; what it generates is known when it is finished."""
        try:
            step = self._runner.run(work)
        except Exception as error:
            # A failed step changed nothing: it can be repeated, to find out whose fault it was.
            if len(work) > 1:
                logger.exception("a step of %d sequences failed; each is tried alone", len(work))
                return [step for item in work for step in self._launch([item])]
            logger.exception("session %s failed", work[0].sequence.session)
            self._fail(work[0].sequence, error)
            return []
        with self._lock:
            newest = iter(step.token_ids.split(1))
            for item in work:
                item.sequence.advance(item.tokens, next(newest) if item.yields_token else None)
            self._scheduler.end_turns(work)
        return [step]

    def _finish(self, step: Step) -> None:
        """Waits for what the step generates, and reports."""
        token_ids = iter(step.known.tolist())
        with self._lock:
            for item in step.work:
                token_id = next(token_ids) if item.yields_token else None
                # A step may still have been computed for a sequence that ended with the one before.
                if not item.sequence.over:
                    self._advance(item, token_id)

    def _advance(self, item: Work, token_id: int | None) -> None:
        sequence = item.sequence
        if token_id is not None:
            sequence.append(token_id)
        self._scheduler.keep_filled(sequence)
        if item.prefill:
            self._report(sequence, Prefilled(item.tokens))
        if token_id is None:
            return
        if token_id in sequence.stop_token_ids:
            self._report(sequence, Tokens((token_id,), "stop"))
        elif len(sequence.output) == sequence.max_tokens:
            self._report(sequence, Tokens((token_id,), "length"))
        else:
            self._report(sequence, Tokens((token_id,)))
            return
        self._forget(sequence)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        with self._lock:
            if isinstance(error, RequestError):
                self._report(sequence, Failed(error.code, error.message))
            else:
                self._report(sequence, Failed("internal", f"the engine failed: {type(error).__name__}: {error}"))
            self._forget(sequence)

    def _report(self, sequence: Sequence, event: Prefilled | Tokens | Failed) -> None:
        if not sequence.cancelled:
            self._listener(sequence.session, event)

    def _forget(self, sequence: Sequence) -> None:
        sequence.over = True
        self._scheduler.remove(sequence)
        if not sequence.cancelled:
            del self._admission.sessions[sequence.session]
