"""The engine: sessions, and one event loop that submits whole prompts and listens to their answers."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from engines.checkpoint import ModelConfig, read_generation_config, read_model_config
from engines.errors import invalid_argument
from engines.fair_queue import FairQueue
from engines.protocol import (
    Admitted,
    EngineState,
    Event,
    Failed,
    Listener,
    Prefilled,
    PromptPiece,
    Request,
    Tokens,
    Waiting,
)
from engines.settings import Settings
from engines.tensorrt_llm.collected import CollectedPrompt
from engines.tensorrt_llm.handover import hand_over
from engines.tensorrt_llm.reservations import Reservations
from engines.tensorrt_llm.sampling import guided_decoding_arguments, sampling_arguments
from engines.tensorrt_llm.support import Support, probe

logger = logging.getLogger(__name__)

LLM_ARGUMENTS = "llm.json"
# What its messages have before the reason why a grammar cannot be compiled.
GUIDED_DECODING_ERROR = "Guided decoding error:"


@dataclass
class _Session:
    """max_tokens: what is left for the answer. stop_token_ids: the checkpoint's own first.

    prompt: until it is submitted; result: from then on.
    """

    name: str
    request: Request
    prompt: CollectedPrompt | None
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    result: Any = None
    over: bool = False


class TensorRTLLMEngine:
    """Implements engines.protocol.Engine.

    A prompt is collected in host memory and submitted when it is whole, because that is how TensorRT-LLM takes it; a
    piece counts as prefilled when it was taken over, so that stage 1 goes on. `_lock` guards sessions and reservations;
    `_prefilling` lets one prompt at a time wait for its first token, because all its rows are on the GPU until then.
    """

    def __init__(
        self, llm: Any, support: Support, settings: Settings, listener: Listener, *, cache_tokens: int, max_length: int
    ) -> None:
        self._llm = llm
        self._support = support
        self._config = read_model_config(settings.checkpoint)
        self._eos_token_ids = read_generation_config(settings.checkpoint, settings.default_max_tokens).eos_token_ids
        self._tokenizer = Tokenizer.from_file(str(settings.checkpoint / "tokenizer.json"))
        self._dtype = _dtype(settings, self._config)
        self._cache_tokens = cache_tokens // settings.block_size * settings.block_size
        self._max_length = max_length
        self._listener = listener
        blocks = cache_tokens // settings.block_size
        queue: FairQueue[str] = FairQueue(
            places=settings.max_batch,
            blocks=blocks,
            owner_share=settings.owner_share,
            max_waiting=settings.max_waiting,
        )
        self._reservations = Reservations(queue, blocks, settings.block_size)
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._prefilling = asyncio.Semaphore(1)
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()

    def open(self, session: str, request: Request) -> None:
        """Queues a session for room in the KV cache. Its answer is cut to what the context and the cache can hold.

        Raises invalid_argument for a prompt that can never fit and resource_exhausted when the queue is full.
        """
        room = min(self._max_length, self._cache_tokens) - request.prompt_tokens
        if room < 1:
            raise invalid_argument(
                f"the prompt has {request.prompt_tokens} tokens and needs room for an answer; the context holds"
                f" {self._max_length} tokens and the KV cache {self._cache_tokens}"
            )
        max_tokens = min(request.sampling.max_tokens, room)
        own = tuple(i for i in request.sampling.stop_token_ids if i < self._config.vocab_size)
        eos = () if request.sampling.ignore_eos else self._eos_token_ids
        opened = _Session(
            name=session,
            request=request,
            prompt=CollectedPrompt(self._config.visual_token_ids, self._dtype),
            max_tokens=max_tokens,
            stop_token_ids=tuple(dict.fromkeys(eos + own)),
        )
        with self._lock:
            if session in self._sessions:
                raise invalid_argument(f"session {session} is open already")
            self._sessions[session] = opened
            self._reservations.ask(session, request.cache_salt, request.prompt_tokens + max_tokens)
            self._admit()
            if (refusal := self._reservations.refusal(session)) is not None:
                self._forget(opened)
                raise refusal
            self._tell_places()

    def feed(self, session: str, piece: PromptPiece) -> None:
        """Takes a piece over, and submits the prompt when it is the last."""
        with self._lock:
            found = self._sessions.get(session)
            if found is None or found.prompt is None:
                return
            found.prompt.add(piece)
            self._listener(session, Prefilled(len(piece.token_ids)))
        if piece.last:
            self._start(self._answer(found))

    def cancel(self, session: str) -> None:
        """Forgets the session, and aborts it where it was submitted."""
        with self._lock:
            found = self._sessions.get(session)
            if found is None:
                return
            self._forget(found)
            if found.result is not None:
                found.result.abort()

    def state(self) -> EngineState:
        with self._lock:
            reservations = self._reservations
            return EngineState(reservations.total, reservations.free, 0, reservations.running, reservations.waiting)

    def close(self) -> None:
        """Aborts what is running, and ends the event loop and TensorRT-LLM's processes."""
        for session in list(self._sessions):
            self.cancel(session)
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._llm.shutdown()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _answer(self, session: _Session) -> None:
        try:
            async with self._prefilling:
                results = await self._submit(session)
                output = await anext(results, None) if results else None
            while output is not None and not self._report(session, output):
                output = await anext(results, None)
        except Exception as error:
            logger.exception("session %s failed", session.name)
            self._end(session, Failed(_failure(session, error)))

    async def _submit(self, session: _Session) -> Any:
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

        arguments = sampling_arguments(session.request.sampling, session.max_tokens, session.stop_token_ids)
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

    def _report(self, session: _Session, output: _Output) -> bool:
        """Tells what is new, and whether it was the last."""
        ids = output.new_ids
        stop = next((place for place, token in enumerate(ids) if token in session.stop_token_ids), None)
        if stop is not None and output.generated - len(ids) + stop + 1 > session.request.sampling.min_tokens:
            self._end(session, Tokens(ids[: stop + 1], "stop"))
            return True
        if output.finish_reason == "stop":
            # The token that ended the answer is not always among those that are returned.
            self._end(session, Tokens((*ids, *session.stop_token_ids[:1]), "stop"))
            return True
        if output.finish_reason:
            self._end(session, Tokens(ids, "length"))
            return True
        if ids:
            with self._lock:
                self._tell(session, Tokens(ids))
        return session.over

    def _end(self, session: _Session, event: Event) -> None:
        with self._lock:
            self._tell(session, event)
            self._forget(session)

    def _tell(self, session: _Session, event: Event) -> None:
        if not session.over:
            self._listener(session.name, event)

    def _forget(self, session: _Session) -> None:
        if session.over:
            return
        session.over = True
        del self._sessions[session.name]
        self._reservations.release(session.name)
        self._admit()
        self._tell_places()

    def _admit(self) -> None:
        for admitted in self._reservations.admit():
            self._listener(admitted, Admitted())

    def _tell_places(self) -> None:
        for session, place in self._reservations.moved():
            self._listener(session, Waiting(place))


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


def _failure(session: _Session, error: Exception) -> str:
    """What went wrong, in the words that the PyTorch engine has for it."""
    _, marker, reason = str(error).partition(GUIDED_DECODING_ERROR)
    if marker and session.request.sampling.response_format is not None:
        return f"invalid_argument: sampling_parameters.response_format cannot be used: {reason.strip()}"
    return f"internal: TensorRT-LLM failed: {type(error).__name__}: {error}"


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def create_engine(settings: Settings, listener: Listener) -> TensorRTLLMEngine:
    """The engine that `settings` and llm.json, beside the checkpoint's folder, describe.

    Raises ValueError for an installed TensorRT-LLM that cannot be used and for arguments that do not fit the settings.
    """
    support = probe()
    from tensorrt_llm import LLM

    arguments = _llm_arguments(settings)
    cache_tokens, max_length = arguments["kv_cache_config"]["max_tokens"], arguments["max_seq_len"]
    if support.encoder_argument:
        arguments["disable_mm_encoder"] = True
    if not support.cache_salt:
        logger.warning("TensorRT-LLM %s cannot tell owners apart: no request reuses another's blocks", support.version)
        arguments["kv_cache_config"]["enable_block_reuse"] = False
    logger.info("TensorRT-LLM %s, layouts: %s, arguments: %s", support.version, support.layouts, arguments)
    llm = LLM(model=str(settings.checkpoint), **arguments)
    return TensorRTLLMEngine(llm, support, settings, listener, cache_tokens=cache_tokens, max_length=max_length)


def _llm_arguments(settings: Settings) -> dict[str, Any]:
    if (settings.weights, settings.kv_cache_dtype, settings.yarn_factor) != ("auto", "auto", None):
        raise ValueError(
            "parameters weights, kv_cache_dtype and yarn_factor are for the engine 'pytorch'; for 'tensorrt_llm' they"
            " are chosen when the repository is built, so auto, auto and an empty value are accepted"
        )
    path: Path = settings.checkpoint.parent / LLM_ARGUMENTS
    try:
        arguments: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: the engine 'tensorrt_llm' needs a repository that was built for a GPU (make engines)"
        ) from None
    cache_tokens = arguments["kv_cache_config"]["max_tokens"]
    wanted = {
        "kv_cache_tokens": (settings.kv_cache_tokens, cache_tokens),
        "block_size": (settings.block_size, arguments["kv_cache_config"]["tokens_per_block"]),
        "context_length": (settings.context_length, arguments["max_seq_len"]),
        "max_batch": (settings.max_batch, arguments["max_batch_size"]),
        "max_step_tokens": (settings.max_step_tokens, arguments["max_num_tokens"]),
    }
    for name, (setting, built) in wanted.items():
        if setting is not None and setting != built:
            raise ValueError(f"parameter {name} is {setting}; the repository was built for {built} (make engines)")
    return arguments


def _dtype(settings: Settings, config: ModelConfig) -> torch.dtype:
    dtype = getattr(torch, config.dtype if settings.dtype == "auto" else settings.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype
