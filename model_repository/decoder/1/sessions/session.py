"""The life of one session: from its first chunk to the last word of its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Services:
    """What all sessions share. defaults: sampling parameters of a request without any."""

    engine: Engine
    config: ModelConfig
    vocabulary: Vocabulary
    defaults: SamplingParameters
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)


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
        self._answer: Answer | None = None
        self._cache_salt = ""
        self._intake: Intake | None = None
        self._queue_place = 0

    def receive(self, chunk: Chunk, reply: Reply) -> None:
        """Takes a chunk, in any order, or a heartbeat."""
        self._heard = chunk.arrived
        self._sent = max(self._sent, chunk.header.sent)
        if chunk.header.index != 0:
            reply.close()
        elif self._reply is None:
            self._reply = reply
        else:
            reply.fail(f"invalid_argument: chunk 0 of session {self.name} came twice")
            return
        if self._credits is None:
            # Before anything can go wrong: stage 1 learns by it that the session is over.
            self._credits = Credits(self._services.settings.credits_directory, self.name)
        if chunk.cancelled:
            self.finish("cancelled", chunk.arrived)
        elif chunk.header.index is None:
            if self._answer is not None:
                self._answer.repeat_progress(chunk.arrived)
        else:
            for ready in self._order.put(chunk.header.index, chunk):
                self._take(ready)

    def hear(self, event: Event, now: float) -> None:
        """Takes an event of the engine."""
        assert self._answer is not None
        assert self._intake is not None
        match event:
            case Waiting(place):
                self._queue_place = self._queue_place or place
                self._progress("waiting", now, queue_place=place)
            case Admitted(held_tokens):
                self._timeline.admitted = now
                self._metrics.dequeued(self.name)
                self._metrics.observe(QUEUE_SECONDS, now - (self._timeline.planned or now))
                self._metrics.count(PREFIX_HIT_TOKENS, held_tokens)
                self._intake.admit(held_tokens)
                self._admit(held_tokens)
                self._grant(self._services.settings.chunks_in_flight)
                self._progress("prefill", now)
            case Prefilled(tokens):
                self._intake.prefilled_tokens += tokens
                self._metrics.count(TOKENS, tokens, "prefill")
                self._grant(self._intake.credits_due())
                self._progress("prefill", now)
            case Tokens(ids, finish_reason):
                self._observe_tokens(len(ids), now)
                if reason := self._answer.add(ids, finish_reason):
                    self.finish(reason, now)
            case Failed(message):
                self.fail(message)

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
        if self._answer is not None and not self.over:
            self._answer.flush()

    def finish(self, reason: str, now: float) -> None:
        """Ends the session with what it has said so far."""
        if self.over:
            return
        self._release()
        self._metrics.count(REQUESTS, label=reason)
        if self._answer is not None:
            plan = self._intake.plan if self._intake else None
            usage = {
                "prompt_tokens": plan.prompt_tokens if plan else 0,
                "video_tokens": plan.video_tokens if plan else 0,
                "cached_tokens": self._intake.held_tokens if self._intake else 0,
                "queue_place": self._queue_place,
                "media": plan.media if plan else [],
                "seconds": self._timeline.seconds(now),
            }
            self._answer.finish(reason, usage)
        elif self._reply is not None:
            self._reply.close()

    def fail(self, message: str) -> None:
        """Ends the session with an error; `message` starts with a status code."""
        if self.over:
            return
        self._metrics.count(REQUESTS, label=message.partition(":")[0])
        self._release(message)

    def _take(self, chunk: Chunk) -> None:
        if self.over:
            return
        if chunk.header.error:
            self.fail(chunk.header.error)
        elif chunk.header.index == 0:
            self._open(chunk)
        elif chunk.header.index == 1:
            self._reserve(chunk)
        else:
            self._feed(chunk)

    def _open(self, chunk: Chunk) -> None:
        services, wanted = self._services, chunk.header.open
        if wanted is None or self._reply is None:
            raise invalid_argument("chunk 0 has no `open` in its header")
        self._timeline.started = min(chunk.header.sent, chunk.arrived)
        self._cache_salt = wanted.cache_salt
        sampling = parse_sampling_parameters(wanted.sampling_parameters, services.defaults)
        self._answer = Answer(
            self._reply, services.vocabulary, sampling, stream=wanted.stream, progress=wanted.progress
        )
        self._progress("sampling", chunk.arrived)

    def _reserve(self, chunk: Chunk) -> None:
        assert self._answer is not None
        plan = chunk.header.plan
        if plan is None:
            raise invalid_argument("chunk 1 has no `plan` in its header")
        request = planned_request(chunk, plan, self._answer.sampling, self._services.config, self._cache_salt)
        self._intake = Intake(plan, request.token_ids)
        self._timeline.planned = chunk.arrived
        self._progress("waiting", chunk.arrived)
        self._metrics.queued(self.name, chunk.arrived)
        self._engine.open(self.name, request)

    def _feed(self, chunk: Chunk) -> None:
        assert self._intake is not None
        piece = prompt_piece(chunk, self._services.config)
        self._intake.add(piece, chunk.header.index)
        if len(piece.rows):
            self._timeline.encode_busy += chunk.encode_seconds
            self._timeline.encode_waited += max(0.0, chunk.arrived - chunk.header.sent - chunk.encode_seconds)
        if chunk.header.seconds is not None:
            self._timeline.preprocess = chunk.header.seconds
        self._engine.feed(self.name, piece)
        self._grant(self._intake.credits_due())

    def _admit(self, held_tokens: int) -> None:
        assert self._credits is not None
        self._credits.admit(held_tokens)

    def _grant(self, chunks: int) -> None:
        assert self._credits is not None
        self._credits.grant(chunks)

    def _progress(self, phase: str, now: float, **more: int) -> None:
        assert self._answer is not None
        prompt_tokens, prefilled = (
            (self._intake.plan.prompt_tokens, self._intake.prefilled_tokens) if self._intake else (0, 0)
        )
        self._answer.progress(phase, prompt_tokens, prefilled, now, **more)

    def _release(self, error: str = "") -> None:
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
