"""The life of one session: from its first chunk to the last word of its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.checkpoint import ModelConfig
from engines.errors import RequestError, invalid_argument
from engines.protocol import Admitted, Engine, Event, Failed, Prefilled, Tokens, Waiting
from engines.sampling_parameters import SamplingParameters, parse_sampling_parameters
from engines.settings import Settings
from sessions.answer import Answer
from sessions.chunk import Chunk, planned_request, prompt_piece
from sessions.credits import Credits
from sessions.detokenizer import Vocabulary
from sessions.failure import Failure
from sessions.intake import Intake
from sessions.metrics import (
    BETWEEN_TOKENS_SECONDS,
    FIRST_TOKEN_SECONDS,
    PREFIX_HIT_TOKENS,
    QUEUE_SECONDS,
    REQUESTS,
    TOKENS,
    Metrics,
)
from sessions.ordering import InOrder
from sessions.reply import Reply
from sessions.usage import Timeline

OVERTAKEN_SECONDS = 10.0
"""Stage 1 sends something of every session each second, and it comes in that order, however long stage 2 takes. Where
nothing came of a session, but did of another that was sent so much later, a stage 2 that died had it."""

NOTHING_PLANNED = {"prompt_tokens": 0, "video_tokens": 0, "cached_tokens": 0, "queue_place": 0, "media": []}


@dataclass(frozen=True)
class Services:
    """The parts that all sessions share."""

    engine: Engine
    config: ModelConfig
    vocabulary: Vocabulary
    defaults: SamplingParameters
    """A request without any gets these."""
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)


@dataclass(frozen=True)
class Opened:
    """A session from chunk 0 on: it has an answer."""

    answer: Answer
    credits: Credits
    cache_salt: str


@dataclass
class Planned:
    """A session from chunk 1 on: it has a plan, and the engine knows it."""

    answer: Answer
    credits: Credits
    intake: Intake
    queue_place: int = 0
    """Its first place in the queue; 0 where it never waited."""

    def progress(self, phase: str, now: float, **more: int) -> None:
        self.answer.progress(phase, self.intake.plan.prompt_tokens, self.intake.prefilled_tokens, now, **more)

    def usage(self) -> dict[str, Any]:
        plan = self.intake.plan
        return {
            "prompt_tokens": plan.prompt_tokens,
            "video_tokens": plan.video_tokens,
            "cached_tokens": self.intake.held_tokens,
            "queue_place": self.queue_place,
            "media": plan.media,
        }


class Session:
    """Takes chunks and engine events, grants credits, and answers on chunk 0's reply. Called from one thread only.

    A RequestError from a method ends the session: the caller then calls `fail` with it. `over` tells that it has ended;
    `failure` is then what the client is still to be told.
    """

    def __init__(self, name: str, request_id: str, services: Services) -> None:
        self.name = name
        self.request_id = request_id
        self.over = False
        self.failure: Failure | None = None
        self._services = services
        self._engine = services.engine
        self._metrics = services.metrics
        # Stage 1 sends the two chunks before the plan's without credits, and an error.
        self._order: InOrder[Chunk] = InOrder(services.settings.chunks_in_flight + 2)
        self._heard = 0.0
        self._sent = 0.0
        self._timeline = Timeline(started=0.0)
        self._reply: Reply | None = None
        self._credits: Credits | None = None
        self._phase: Opened | Planned | None = None

    def receive(self, chunk: Chunk, reply: Reply) -> None:
        """Takes a chunk, in any order, or a heartbeat."""
        self._heard = chunk.arrived
        self._sent = max(self._sent, chunk.header.sent)
        if chunk.header.index != 0:
            reply.close()
        elif self._reply is None:
            self._reply = reply
        else:
            reply.fail(invalid_argument(f"chunk 0 of session {self.name} came twice"))
            return
        if self._credits is None:
            # Before anything can go wrong: stage 1 learns by it that the session is over.
            self._credits = Credits(self._services.settings.credits_directory, self.name)
        if chunk.cancelled:
            self.finish("cancelled", chunk.arrived)
        elif chunk.header.index is None:
            if self._phase is not None:
                self._phase.answer.repeat_progress(chunk.arrived)
        else:
            for ready in self._order.put(chunk.header.index, chunk):
                self._take(ready, self._credits)

    def hear(self, event: Event, now: float) -> None:
        """Takes an event of the engine."""
        planned = self._phase
        assert isinstance(planned, Planned), "the engine speaks of sessions that were opened there"
        match event:
            case Waiting(place):
                planned.queue_place = planned.queue_place or place
                planned.progress("waiting", now, queue_place=place)
            case Admitted(held_tokens):
                self._timeline.admitted = now
                self._metrics.dequeued(self.name)
                self._metrics.observe(QUEUE_SECONDS, now - (self._timeline.planned or now))
                self._metrics.count(PREFIX_HIT_TOKENS, held_tokens)
                planned.intake.admit(held_tokens)
                planned.credits.admit(held_tokens)
                planned.credits.grant(self._services.settings.chunks_in_flight)
                planned.progress("prefill", now)
            case Prefilled(tokens):
                planned.intake.prefilled_tokens += tokens
                self._metrics.count(TOKENS, tokens, "prefill")
                planned.credits.grant(planned.intake.credits_due())
                planned.progress("prefill", now)
            case Tokens(ids, finish_reason):
                self._observe_tokens(len(ids), now)
                if reason := planned.answer.add(ids, finish_reason):
                    self.finish(reason, now)
            case Failed(code, message):
                self.fail(RequestError(code, message))

    def _observe_tokens(self, count: int, now: float) -> None:
        self._metrics.count(TOKENS, count, "decode")
        if self._timeline.first_token is None:
            self._metrics.observe(FIRST_TOKEN_SECONDS, now - self._timeline.started)
        for gap in self._timeline.add_tokens(count, now):
            self._metrics.observe(BETWEEN_TOKENS_SECONDS, gap)

    def check(self, now: float, newest: float) -> None:
        """Looks for what ends a session without a word: silence, the end of stage 1 or 2, the time limit.

        newest: when stage 1 sent the newest of what has come, of any session.
        """
        settings, first_token = self._services.settings, self._timeline.first_token
        if now - self._heard > settings.silence_seconds:
            raise RequestError(
                "unavailable",
                f"the stages before were silent for {settings.silence_seconds:g} seconds; where a chunk takes longer "
                "to encode, the operator sets the decoder's parameter silence_seconds higher",
            )
        if newest - self._sent > OVERTAKEN_SECONDS:
            raise RequestError("unavailable", "what followed was lost on the way: stage 2 (vision_encoder) has ended")
        if self._credits is not None:
            self._credits.check()
        if first_token is not None and now - first_token > settings.max_generation_seconds:
            self.finish("time_limit", now)

    def flush(self) -> None:
        """Sends the text that has gathered."""
        if self._phase is not None and not self.over:
            self._phase.answer.flush()

    def finish(self, reason: str, now: float) -> None:
        """Ends the session with what it has said so far."""
        if self.over:
            return
        self._release()
        self._metrics.count(REQUESTS, label=reason)
        if self._phase is not None:
            known = self._phase.usage() if isinstance(self._phase, Planned) else NOTHING_PLANNED
            self._phase.answer.finish(reason, {**known, "seconds": self._timeline.seconds(now)})
        elif self._reply is not None:
            self._reply.close()

    def fail(self, error: RequestError) -> None:
        """Ends the session with an error."""
        if self.over:
            return
        self._metrics.count(REQUESTS, label=error.code)
        self._release(error)

    def _take(self, chunk: Chunk, credits: Credits) -> None:
        if self.over:
            return
        if chunk.header.error is not None:
            self.fail(chunk.header.error)
            return
        match self._phase:
            case None:
                self._phase = self._open(chunk, credits)
            case Opened() as opened:
                self._phase = self._plan(opened, chunk)
            case Planned() as planned:
                self._feed(planned, chunk)

    def _open(self, chunk: Chunk, credits: Credits) -> Opened:
        services, wanted = self._services, chunk.header.open
        if wanted is None or self._reply is None:
            raise invalid_argument("chunk 0 has no `open` in its header")
        self._timeline.started = min(chunk.header.sent, chunk.arrived)
        sampling = parse_sampling_parameters(wanted.sampling_parameters, services.defaults)
        answer = Answer(self._reply, services.vocabulary, sampling, stream=wanted.stream, progress=wanted.progress)
        answer.progress("sampling", 0, 0, chunk.arrived)
        return Opened(answer, credits, wanted.cache_salt)

    def _plan(self, opened: Opened, chunk: Chunk) -> Planned:
        plan, sampling = chunk.header.plan, opened.answer.sampling
        if plan is None:
            raise invalid_argument("chunk 1 has no `plan` in its header")
        request = planned_request(chunk, plan, sampling, self._services.config, opened.cache_salt)
        planned = Planned(opened.answer, opened.credits, Intake(plan, request.token_ids))
        self._timeline.planned = chunk.arrived
        planned.progress("waiting", chunk.arrived)
        self._metrics.queued(self.name, chunk.arrived)
        self._engine.open(self.name, request)
        return planned

    def _feed(self, planned: Planned, chunk: Chunk) -> None:
        piece = prompt_piece(chunk, self._services.config)
        planned.intake.add(piece, chunk.header.index)
        if len(piece.rows):
            self._timeline.encode_busy += chunk.encode_seconds
            self._timeline.encode_waited += max(0.0, chunk.arrived - chunk.header.sent - chunk.encode_seconds)
        if chunk.header.seconds is not None:
            self._timeline.preprocess = chunk.header.seconds
        self._engine.feed(self.name, piece)
        planned.credits.grant(planned.intake.credits_due())

    def _release(self, error: RequestError | None = None) -> None:
        self.over = True
        self._metrics.dequeued(self.name)
        self._engine.cancel(self.name)
        if self._credits is not None:
            self._credits.end()
            if error and self._reply is not None:
                self.failure = Failure(self._reply, self._credits, error)
            else:
                self._credits.close()
        elif error and self._reply is not None:
            self._reply.fail(error)
