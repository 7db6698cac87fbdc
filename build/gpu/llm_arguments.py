"""The arguments that the TensorRT-LLM engine gives to `LLM(...)`: written at build time, read at start."""

from __future__ import annotations

from typing import Any

from build.gpu.configurations import TOKENS_PER_BLOCK
from build.gpu.planner.planning import MAX_BATCH, Fit


def llm_arguments(fit: Fit) -> dict[str, Any]:
    """Keyword arguments of `tensorrt_llm.LLM`, except the model's folder; names as in its 1.3 `TorchLlmArgs`."""
    return {
        "max_batch_size": MAX_BATCH,
        "max_num_tokens": fit.profile.max_step_tokens,
        "max_seq_len": fit.context_tokens,
        "enable_chunked_prefill": True,
        # It checks answers with a response_format.
        "guided_decoding_backend": "llguidance",
        "kv_cache_config": {
            # The fit's own count, rather than a share of whatever is free at start.
            "max_tokens": fit.cache_tokens,
            "dtype": "fp8" if fit.kv_cache == "fp8" else "auto",
            "enable_block_reuse": True,
            "tokens_per_block": TOKENS_PER_BLOCK,
        },
        # Nothing is evicted half-way: a session that started can finish.
        "scheduler_config": {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"},
        "cuda_graph_config": {"batch_sizes": [1, 2, 4, 8, 16, 32, MAX_BATCH], "enable_padding": True},
    }
