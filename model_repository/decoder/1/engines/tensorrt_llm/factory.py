"""A TensorRT-LLM engine from settings and from llm.json, which the build has written."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from engines.admission import Admission
from engines.checkpoint import read_generation_config, read_model_config
from engines.protocol import Listener
from engines.reservations import Reservations
from engines.settings import Settings
from engines.tensorrt_llm.engine import Session, TensorRTLLMEngine
from engines.tensorrt_llm.support import probe

logger = logging.getLogger(__name__)

LLM_ARGUMENTS = "llm.json"


def create_engine(settings: Settings, listener: Listener) -> TensorRTLLMEngine:
    """The engine that `settings` and llm.json, beside the checkpoint's folder, describe.

    Raises ValueError for an installed TensorRT-LLM that cannot be used and for arguments that do not fit the settings.
    """
    support = probe()
    from tensorrt_llm import LLM

    arguments = _llm_arguments(settings)
    if support.encoder_argument:
        arguments["disable_mm_encoder"] = True
    if not support.cache_salt:
        logger.warning("TensorRT-LLM %s cannot tell owners apart: no request reuses another's blocks", support.version)
        arguments["kv_cache_config"]["enable_block_reuse"] = False
    logger.info("TensorRT-LLM %s, layouts: %s, arguments: %s", support.version, support.layouts, arguments)
    llm = LLM(model=str(settings.checkpoint), **arguments)
    config = read_model_config(settings.checkpoint)
    blocks = arguments["kv_cache_config"]["max_tokens"] // settings.block_size
    admission: Admission[Session] = Admission(
        settings,
        config,
        read_generation_config(settings.checkpoint, settings.default_max_tokens).eos_token_ids,
        listener,
        context_length=arguments["max_seq_len"],
        blocks=blocks,
        caches_last_token=True,
    )
    return TensorRTLLMEngine(
        llm,
        support,
        config,
        getattr(torch, config.dtype if settings.dtype == "auto" else settings.dtype),
        Tokenizer.from_file(str(settings.checkpoint / "tokenizer.json")),
        admission,
        Reservations(admission.queue, blocks, settings.block_size),
        listener,
    )


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
            f"{path} is missing: the engine 'tensorrt_llm' needs a repository that was built for a GPU"
            " (make repository)"
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
            raise ValueError(f"parameter {name} is {setting}; the repository was built for {built} (make repository)")
    return arguments
