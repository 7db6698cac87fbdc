"""The engine: sessions, and one event loop that submits whole prompts and listens to their answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from engines.admission import Admission, StopConditions
from engines.checkpoint import ModelConfig
from engines.protocol import Admitted, EngineState, Event, Failed, Listener, Prefilled, PromptPiece, Request, Tokens
from engines.reservations import Reservations
from engines.tensorrt_llm.collected import CollectedPrompt
from engines.tensorrt_llm.handover import hand_over
from engines.tensorrt_llm.sampling import guided_decoding_arguments, sampling_arguments
from engines.tensorrt_llm.support import Support

logger = logging.getLogger(__name__)

# Its messages have this before the reason why a grammar cannot be compiled.
GUIDED_DECODING_ERROR = "Guided decoding error:"


@dataclass(eq=False)
class Session:
    """One session inside the engine."""

    session: str
    request: Request
    stop: StopConditions
    prompt: CollectedPrompt | None
    """Until it is submitted."""
    result: Any = None
    """From then on."""
    over: bool = False

    @property
    def owner(self) -> str:
        return self.request.cache_salt

    @property
    def reserved_tokens(self) -> int:
        return self.request.prompt_tokens + self.stop.max_tokens


class TensorRTLLMEngine:
    """Implements engines.protocol.Engine.

    A prompt is collected in host memory and submitted when it is whole, because that is how TensorRT-LLM takes it; a
    piece counts as prefilled when it was taken over, so that stage 1 goes on. `_lock` guards sessions and reservations;
    `_prefilling` lets one prompt at a time wait for its first token, because all its rows are on the GPU until then.
    """

    def __init__(
        self,
        llm: Any,
        support: Support,
        config: ModelConfig,
        dtype: torch.dtype,
        tokenizer: Tokenizer,
        admission: Admission[Session],
        reservations: Reservations[Session],
        listener: Listener,
    ) -> None:
        self._llm = llm
        self._support = support
        self._config = config
        self._dtype = dtype
        self._tokenizer = tokenizer
        self._admission = admission
        self._reservations = reservations
        self._listener = listener
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._prefilling = asyncio.Semaphore(1)
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()

    def open(self, session: str, request: Request) -> None:
        """Queues a session for room in the KV cache.

        Raises invalid_argument for a prompt that can never fit and resource_exhausted when the queue is full.
        """
        stop = self._admission.stop_conditions(request)
        prompt = CollectedPrompt(self._config.visual_token_ids, self._dtype)
        with self._lock:
            self._admission.enter(Session(session, request, stop, prompt), self._admit)

    def feed(self, session: str, piece: PromptPiece) -> None:
        """Takes a piece over, and submits the prompt when it is the last."""
        with self._lock:
            found = self._admission.sessions.get(session)
            if found is None or found.prompt is None:
                return
            found.prompt.add(piece)
            self._listener(session, Prefilled(len(piece.token_ids)))
        if piece.last:
            self._start(self._answer(found))

    def cancel(self, session: str) -> None:
        """Forgets the session, and aborts it where it was submitted."""
        with self._lock:
            found = self._admission.sessions.get(session)
            if found is None:
                return
            self._forget(found)
            if found.result is not None:
                found.result.abort()

    def state(self) -> EngineState:
        with self._lock:
            reservations, queue = self._reservations, self._admission.queue
            return EngineState(reservations.total, reservations.free, 0, queue.running, queue.waiting)

    def close(self) -> None:
        """Aborts what is running, and ends the event loop and TensorRT-LLM's processes."""
        for session in list(self._admission.sessions):
            self.cancel(session)
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._llm.shutdown()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _answer(self, session: Session) -> None:
        try:
            async with self._prefilling:
                results = await self._submit(session)
                output = await anext(results, None) if results else None
            while output is not None and not self._report(session, output):
                output = await anext(results, None)
        except Exception as error:
            logger.exception("session %s failed", session.session)
            self._end(session, _failed(session, error))

    async def _submit(self, session: Session) -> Any:
        """The answer's outputs as they come; None for a session that was cancelled meanwhile."""
        prompt, session.prompt = session.prompt, None
        assert prompt is not None
        # Off the loop: hashing and copying the rows of a long video takes a while, and others generate meanwhile.
        handover = await asyncio.to_thread(
            hand_over,
            prompt,
            session.request.next_position,
            self._tokenizer,
            layouts=self._support.layouts,
            cache_salt=session.request.cache_salt,
        )
        from tensorrt_llm import SamplingParams

        arguments = sampling_arguments(session.request.sampling, session.stop)
        if (wanted := session.request.sampling.response_format) is not None:
            from tensorrt_llm.llmapi import GuidedDecodingParams

            arguments["guided_decoding"] = GuidedDecodingParams(**guided_decoding_arguments(wanted))
        with self._lock:
            if session.over:
                return None
            session.result = self._llm.generate_async(
                handover.inputs,
                SamplingParams(**arguments),
                disaggregated_params=handover.disaggregated_params,
                streaming=True,
                **({"cache_salt": session.request.cache_salt or None} if self._support.cache_salt else {}),
            )
        return _outputs(session.result, handover.kept)

    def _report(self, session: Session, output: _Output) -> bool:
        """Tells what is new, and whether it was the last."""
        ids = output.new_ids
        stop = next((place for place, token in enumerate(ids) if token in session.stop.token_ids), None)
        if stop is not None and output.generated - len(ids) + stop + 1 > session.request.sampling.min_tokens:
            self._end(session, Tokens(ids[: stop + 1], "stop"))
            return True
        if output.finish_reason == "stop":
            # The token that ended the answer is not always among those that are returned.
            self._end(session, Tokens((*ids, *session.stop.token_ids[:1]), "stop"))
            return True
        if output.finish_reason:
            self._end(session, Tokens(ids, "length"))
            return True
        if ids:
            with self._lock:
                self._tell(session, Tokens(ids))
        return session.over

    def _end(self, session: Session, event: Event) -> None:
        with self._lock:
            self._tell(session, event)
            self._forget(session)

    def _tell(self, session: Session, event: Event) -> None:
        if not session.over:
            self._listener(session.session, event)

    def _forget(self, session: Session) -> None:
        if session.over:
            return
        session.over = True
        del self._admission.sessions[session.session]
        self._reservations.release(session)
        self._admit()
        self._admission.tell_places()

    def _admit(self) -> None:
        while admitted := self._reservations.admit():
            self._listener(admitted.session, Admitted())


@dataclass(frozen=True)
class _Output:
    """new_ids: since the last output. generated: how many there are by now. finish_reason: empty until the end."""

    new_ids: tuple[int, ...]
    generated: int
    finish_reason: str


async def _outputs(result: Any, kept: tuple[torch.Tensor, ...]) -> Any:
    """TensorRT-LLM's cumulative outputs as what is new in each; `kept` lives as long as they are read."""
    seen = 0
    async for output in result:
        completion = output.outputs[0]
        ids = tuple(completion.token_ids[seen:])
        seen += len(ids)
        yield _Output(ids, seen, completion.finish_reason or "")
    del kept


def _failed(session: Session, error: Exception) -> Failed:
    """The error in the words that the PyTorch engine has for it."""
    _, marker, reason = str(error).partition(GUIDED_DECODING_ERROR)
    if marker and session.request.sampling.response_format is not None:
        reason = f"sampling_parameters.response_format cannot be used: {reason.strip()}"
        return Failed("invalid_argument", reason)
    return Failed("internal", f"TensorRT-LLM failed: {type(error).__name__}: {error}")


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
