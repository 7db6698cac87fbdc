"""Sampling parameters in TensorRT-LLM's words."""

from __future__ import annotations

import random
from typing import Any

from engines.admission import StopConditions
from engines.response_format import ResponseFormat
from engines.sampling_parameters import SamplingParameters

# Values at which a penalty or a filter does nothing; they are left out.
_NEUTRAL = {
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def guided_decoding_arguments(wanted: ResponseFormat) -> dict[str, Any]:
    """Keyword arguments of `tensorrt_llm.llmapi.GuidedDecodingParams`."""
    return {"regex": wanted.grammar} if wanted.kind == "regex" else {"json": wanted.grammar}


def sampling_arguments(sampling: SamplingParameters, stop: StopConditions) -> dict[str, Any]:
    """Keyword arguments of `tensorrt_llm.SamplingParams`. Stop strings are looked for where text is made."""
    arguments: dict[str, Any] = {
        name: getattr(sampling, name) for name, neutral in _NEUTRAL.items() if getattr(sampling, name) != neutral
    }
    if sampling.temperature == 0:
        for name in ("top_p", "min_p"):
            arguments.pop(name, None)
        arguments["top_k"] = 1
    else:
        arguments["temperature"] = sampling.temperature
        # 0 is all of them there too, and -1 is refused.
        arguments["top_k"] = max(sampling.top_k, 0)
    # Without one, every request would have the seed 0.
    seed = random.getrandbits(64) if sampling.seed is None else sampling.seed % 2**64
    return arguments | {
        "max_tokens": stop.max_tokens,
        "min_tokens": sampling.min_tokens or None,
        "seed": seed,
        # An id is needed even where nothing ends the answer: one that no token has.
        "end_id": stop.token_ids[0] if stop.token_ids else -1,
        "stop_token_ids": list(stop.token_ids[1:]) or None,
        "include_stop_str_in_output": True,
        "add_special_tokens": False,
        "detokenize": False,
    }
