"""The engine: one thread that admits, computes a step for everyone, and reports."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from engines.checkpoint import GenerationConfig, ModelConfig, Yarn, read_generation_config, read_model_config
from engines.errors import RequestError, invalid_argument
from engines.fair_queue import FairQueue
from engines.protocol import Admitted, EngineState, Failed, Listener, Prefilled, PromptPiece, Request, Tokens, Waiting
from engines.pytorch.batch import Work, build_batch
from engines.pytorch.cache.block_keys import Content
from engines.pytorch.cache.block_manager import BlockManager
from engines.pytorch.cache.block_tables import BlockTables
from engines.pytorch.cache.kv_cache import KVCache, choose_cache_tokens
from engines.pytorch.cache.prefix_cache import PrefixCache
from engines.pytorch.decode_steps import DecodeSteps, cuda_graphs
from engines.pytorch.grammar.compiler import GrammarCompiler
from engines.pytorch.grammar.grammar import Grammar
from engines.pytorch.model.operations import Operations
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.model.weights import load_weights
from engines.pytorch.prompt import to_stretch
from engines.pytorch.sampler import sample
from engines.pytorch.scheduler import Scheduler
from engines.pytorch.sequence import Sequence
from engines.pytorch.token_counts import TokenCounts
from engines.pytorch.transfer import HostCopy
from engines.sampling_parameters import SamplingParameters
from engines.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """A step that was handed to the device. token_ids: int64 [work that yields a token]; known: these, on the host."""

    work: list[Work]
    token_ids: torch.Tensor
    known: HostCopy


class PyTorchEngine:
    """In-flight batching over a paged KV cache; implements engines.protocol.Engine.

    `_lock` guards sequences and the scheduler; a step computes outside of it, on sequences that only the engine's
    thread removes, so that memory which a step writes to is never given to someone else meanwhile.
    """

    def __init__(
        self,
        model: TextModel,
        cache: KVCache,
        decode_steps: DecodeSteps | None,
        scheduler: Scheduler,
        grammars: GrammarCompiler,
        config: ModelConfig,
        generation: GenerationConfig,
        context_length: int,
        listener: Listener,
        device: torch.device,
        dtype: torch.dtype,
        lag: int,
    ) -> None:
        self._model = model
        self._cache = cache
        self._decode_steps = decode_steps
        self._scheduler = scheduler
        self._grammars = grammars
        self._config = config
        self._eos_token_ids = frozenset(generation.eos_token_ids)
        self._context_length = context_length
        self._listener = listener
        self._device = device
        self._dtype = dtype
        self._lag = lag
        self._sequences: dict[str, Sequence] = {}
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

        Raises invalid_argument for a prompt that can never fit and resource_exhausted when the queue is full; who waits
        for a grammar is told so by `Failed`.
        """
        wanted = request.sampling.response_format
        if wanted is None:
            self._queue(session, request, None)
        else:
            self._grammars.start(
                session, request.cache_salt, wanted, lambda grammar: self._queue(session, request, grammar)
            )

    def _queue(self, session: str, request: Request, grammar: Grammar | None) -> None:
        """Its answer is cut to what the context and the whole cache can hold."""
        block_size = self._cache.block_size
        cache_tokens = self._scheduler.blocks.total * block_size
        # The last generated token needs no room in the cache.
        room = min(self._context_length, cache_tokens + 1) - request.prompt_tokens
        if room < 1:
            raise invalid_argument(
                f"the prompt has {request.prompt_tokens} tokens and needs room for an answer; the context holds"
                f" {self._context_length} tokens and the KV cache {cache_tokens}"
            )
        sampling, config = request.sampling, self._config
        max_tokens = min(sampling.max_tokens, room)
        sequence = Sequence(
            session,
            request,
            max_tokens=max_tokens,
            stop_token_ids=self._stop_token_ids(sampling),
            counts=TokenCounts(request.token_ids, config.vocab_size, self._device) if _penalises(sampling) else None,
            content=Content(request, config.visual_token_ids, max_tokens, block_size),
            grammar=grammar,
        )
        # Outside of the lock: a long prompt has many names.
        sequence.content.name(request.prompt_tokens // block_size - 1)
        with self._lock:
            if session in self._sequences:
                raise invalid_argument(f"session {session} is open already")
            self._scheduler.queue.add(sequence, sequence.owner)
            self._admit()
            refusal = self._scheduler.queue.refusal(sequence)
            if refusal is not None:
                self._scheduler.remove(sequence)
            else:
                self._sequences[session] = sequence
                self._changed.notify()
            self._tell_places()
            if refusal is not None:
                raise refusal

    def feed(self, session: str, piece: PromptPiece) -> None:
        """Adds a piece to the session's prompt."""
        # Outside of the lock: the rows of a chunk are megabytes.
        stretch = to_stretch(piece, self._config.visual_token_ids, self._device, self._dtype)
        with self._lock:
            sequence = self._sequences.get(session)
            if sequence is None:
                return
            sequence.prompt.append(stretch, piece.begin)
            self._changed.notify()

    def cancel(self, session: str) -> None:
        """Forgets the session; its blocks are free after the step that is being computed."""
        self._grammars.cancel(session)
        with self._lock:
            sequence = self._sequences.pop(session, None)
            if sequence is None:
                return
            sequence.cancelled = True
            if sequence in self._scheduler.queue:
                self._scheduler.remove(sequence)
                self._tell_places()
            self._changed.notify()

    def state(self) -> EngineState:
        with self._lock:
            scheduler = self._scheduler
            blocks = scheduler.blocks
            return EngineState(
                blocks.total, blocks.available, blocks.cached, len(scheduler.running), scheduler.queue.waiting
            )

    def close(self) -> None:
        """Ends the thread after the step that is being computed."""
        self._grammars.close()
        with self._lock:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _stop_token_ids(self, sampling: SamplingParameters) -> frozenset[int]:
        own = frozenset(i for i in sampling.stop_token_ids if i < self._config.vocab_size)
        return own if sampling.ignore_eos else own | self._eos_token_ids

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
        self._tell_places()
        return self._scheduler.next_step()

    def _admit(self) -> None:
        while admitted := self._scheduler.admit():
            sequence, reservation = admitted
            if reservation.source is not None:
                # Before the next reservation, which may evict the source.
                block, tokens = divmod(reservation.held_tokens, self._cache.block_size)
                self._cache.copy(reservation.source, sequence.blocks[block], tokens or self._cache.block_size)
            self._listener(sequence.session, Admitted(reservation.held_tokens))

    def _tell_places(self) -> None:
        for place, sequence in enumerate(self._scheduler.queue.order(), start=1):
            if sequence.place != place:
                sequence.place = place
                self._listener(sequence.session, Waiting(place))

    def _launch(self, work: list[Work]) -> list[Step]:
        """Has the device compute a step, and takes it as done; what it generates is known when it is finished."""
        try:
            step = self._compute(work)
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

    def _compute(self, work: list[Work]) -> Step:
        if self._decode_steps and not any(item.prefill for item in work):
            logits = self._decode_steps(work)
        else:
            logits = self._model(build_batch(work, self._device, self._scheduler.tables), self._cache)
        yielding = [item.sequence for item in work if item.yields_token]
        token_ids = sample(logits, yielding) if yielding else torch.empty(0, dtype=torch.long)
        return Step(work, token_ids, HostCopy(token_ids))

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
            known = isinstance(error, RequestError)
            message = str(error) if known else f"internal: the engine failed: {type(error).__name__}: {error}"
            self._report(sequence, Failed(message))
            self._forget(sequence)

    def _report(self, sequence: Sequence, event: Prefilled | Tokens | Failed) -> None:
        if not sequence.cancelled:
            self._listener(sequence.session, event)

    def _forget(self, sequence: Sequence) -> None:
        sequence.over = True
        self._scheduler.remove(sequence)
        if not sequence.cancelled:
            del self._sequences[sequence.session]


def create_engine(settings: Settings, listener: Listener) -> PyTorchEngine:
    """The engine that `settings` describe. Raises ValueError naming a setting or a file that cannot be used."""
    device = _choose_device(settings.device)
    config = read_model_config(settings.checkpoint)
    if settings.yarn_factor is not None:
        config = replace(config, yarn=Yarn.by_factor(settings.yarn_factor, config.max_position_embeddings))
    dtype = _choose_dtype(settings.dtype, config, device)
    # Idle threads of PyTorch spin, on cores on which the other stages work at the same time.
    torch.set_num_threads(settings.threads or max(1, len(os.sched_getaffinity(0)) // 2))
    # In a thread of its own, with which the helpers end that OpenMP starts for it. The engine's thread has helpers too,
    # and where a process has more of both than cores, they sleep after every operation and are woken for the next.
    with ThreadPoolExecutor(1) as loader:
        weights = loader.submit(load_weights, settings.checkpoint, config, device, dtype, settings.weights).result()
    on_gpu = device.type == "cuda"
    # While a GPU computes a step, the host reads what the one before has generated and prepares the next.
    lag = 1 if on_gpu else 0
    by_table = on_gpu and settings.decode_graphs
    model = TextModel(config, weights, fused_operations(config) if by_table else None)
    engine = build_engine(settings, config, model, listener, device, dtype, lag=lag, by_table=by_table)
    engine.start()
    return engine


def build_engine(
    settings: Settings,
    config: ModelConfig,
    model: TextModel,
    listener: Listener,
    device: torch.device,
    dtype: torch.dtype,
    *,
    lag: int,
    by_table: bool = False,
) -> PyTorchEngine:
    """An engine that computes a step whenever `step` is called, or from `start` on.

    lag: steps that are launched before it is known what the one before them generated
    by_table: whether attention of decode steps looks up block tables, and these steps are CUDA graphs on a GPU
    """
    kept = dtype if settings.kv_cache_dtype == "auto" else getattr(torch, settings.kv_cache_dtype)
    cache_tokens = settings.kv_cache_tokens or choose_cache_tokens(config, device, kept)
    blocks = cache_tokens // settings.block_size
    if blocks < 1:
        raise ValueError(f"a KV cache of {cache_tokens} tokens holds no block of {settings.block_size}")
    logger.info("KV cache: %d blocks of %d tokens in %s on %s", blocks, settings.block_size, kept, device)
    generation = read_generation_config(settings.checkpoint, settings.default_max_tokens)
    cache = KVCache(config, blocks, settings.block_size, device, dtype, kept)
    context_length = settings.context_length or config.max_position_embeddings
    tables = decode_steps = None
    if by_table:
        longest = min(blocks, -(-context_length // settings.block_size))
        tables = BlockTables(settings.max_batch, longest, settings.block_size, device)
        record = cuda_graphs() if device.type == "cuda" else lambda compute: compute
        decode_steps = DecodeSteps(model, cache, tables, device, settings.max_batch, record)
    queue: FairQueue[Sequence] = FairQueue(
        places=settings.max_batch, blocks=blocks, owner_share=settings.owner_share, max_waiting=settings.max_waiting
    )
    scheduler = Scheduler(
        queue,
        PrefixCache(BlockManager(blocks), settings.block_size, enabled=settings.prefix_cache),
        tables=tables,
        block_size=settings.block_size,
        max_step_tokens=settings.max_step_tokens,
        device=device,
    )
    return PyTorchEngine(
        model=model,
        cache=cache,
        decode_steps=decode_steps,
        scheduler=scheduler,
        grammars=GrammarCompiler(
            settings.checkpoint / "tokenizer.json",
            config.vocab_size,
            generation.eos_token_ids,
            max_waiting=settings.max_waiting,
            listener=listener,
        ),
        config=config,
        generation=generation,
        context_length=context_length,
        listener=listener,
        device=device,
        dtype=dtype,
        lag=lag,
    )


def fused_operations(config: ModelConfig) -> Operations:
    """A GPU's kernels for what a layer computes between its matrix products."""
    # Only where they are used: Triton comes with PyTorch for GPUs.
    from engines.pytorch.model.fused_operations import FusedOperations

    return FusedOperations(config.rms_norm_eps)


def _penalises(sampling: SamplingParameters) -> bool:
    neutral = (1.0, 0.0, 0.0)
    return (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) != neutral


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"parameter device is {name!r}; auto, cpu and cuda are accepted") from None


def _choose_dtype(name: str, config: ModelConfig, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "float32" if device.type == "cpu" else config.dtype
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
