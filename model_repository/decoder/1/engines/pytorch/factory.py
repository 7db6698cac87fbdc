"""A PyTorch engine from settings: its device, precision, model, KV cache and queue."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from engines.admission import Admission
from engines.checkpoint import ModelConfig, Yarn, read_generation_config, read_model_config
from engines.protocol import Listener
from engines.pytorch.cache.block_manager import BlockManager
from engines.pytorch.cache.block_tables import BlockTables
from engines.pytorch.cache.kv_cache import KVCache, choose_cache_tokens
from engines.pytorch.cache.prefix_cache import PrefixCache
from engines.pytorch.decode_steps import DecodeSteps, cuda_graphs
from engines.pytorch.engine import PyTorchEngine
from engines.pytorch.grammar.compiler import GrammarCompiler
from engines.pytorch.model.registry import build_model, load_weights
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.runner import ModelRunner
from engines.pytorch.scheduler import Scheduler
from engines.pytorch.sequence import Sequence
from engines.settings import Settings

logger = logging.getLogger(__name__)


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
    by_table = on_gpu and settings.decode_graphs
    model = build_model(config, weights, by_table=by_table)
    # While a GPU computes a step, the host reads what the one before has generated and prepares the next.
    lag = 1 if on_gpu else 0
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

    by_table: whether attention of decode steps looks up block tables, and these steps are CUDA graphs on a GPU.
    """
    kept = dtype if settings.kv_cache_dtype == "auto" else getattr(torch, settings.kv_cache_dtype)
    cache_tokens = settings.kv_cache_tokens or choose_cache_tokens(config, device, kept)
    block_size = settings.block_size
    blocks = cache_tokens // block_size
    if blocks < 1:
        raise ValueError(f"a KV cache of {cache_tokens} tokens holds no block of {block_size}")
    logger.info("KV cache: %d blocks of %d tokens in %s on %s", blocks, block_size, kept, device)
    eos_token_ids = read_generation_config(settings.checkpoint, settings.default_max_tokens).eos_token_ids
    context_length = settings.context_length or config.max_position_embeddings
    cache = KVCache(config, blocks, block_size, device, dtype, kept)
    tables = decode_steps = None
    if by_table:
        tables = BlockTables(settings.max_batch, min(blocks, -(-context_length // block_size)), block_size, device)
        record = cuda_graphs() if device.type == "cuda" else lambda compute: compute
        decode_steps = DecodeSteps(model, cache, tables, device, settings.max_batch, record)
    admission: Admission[Sequence] = Admission(
        settings,
        config,
        eos_token_ids,
        listener,
        context_length=context_length,
        blocks=blocks,
        caches_last_token=False,
    )
    scheduler = Scheduler(
        admission.queue,
        PrefixCache(BlockManager(blocks), block_size, enabled=settings.prefix_cache),
        tables=tables,
        block_size=block_size,
        max_step_tokens=settings.max_step_tokens,
        device=device,
    )
    grammars = GrammarCompiler(
        settings.checkpoint / "tokenizer.json",
        config.vocab_size,
        eos_token_ids,
        max_waiting=settings.max_waiting,
        listener=listener,
    )
    runner = ModelRunner(config, model, cache, device, dtype, tables=tables, decode_steps=decode_steps)
    return PyTorchEngine(runner, scheduler, admission, grammars, listener, lag=lag)


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
