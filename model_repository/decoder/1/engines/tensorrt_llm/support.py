"""The abilities of the installed TensorRT-LLM: asked of its interface, because its version numbers say too little."""

from __future__ import annotations

import dataclasses
import inspect
import os
from dataclasses import dataclass

# The newest version whose sources were read; several handles per request came in the candidates of June 2026.
SUFFICIENT = "1.3.0rc29"


@dataclass(frozen=True)
class Support:
    """layouts: expanded token ids with exact runs are taken, so that nothing is tokenised again.

    encoder_argument: `LLM` has an argument that leaves out the vision tower; before it, an environment variable did.
    cache_salt: `generate_async` takes the owner of what is cached; without it nothing may be shared between requests.
    """

    version: str
    layouts: bool
    encoder_argument: bool
    cache_salt: bool


def probe() -> Support:
    """Asks the installed TensorRT-LLM. ValueError where there is none, or one that cannot take a video."""
    # Read when its modules are imported: the vision tower is stage 2's, and this process needs none.
    os.environ["TLLM_MULTIMODAL_DISAGGREGATED"] = "1"
    try:
        import tensorrt_llm
    except ImportError as error:
        raise ValueError(
            f"parameter engine is 'tensorrt_llm', and the package is not importable ({error}): serve with the GPU image"
            " (docker/gpu.Dockerfile), or set it to 'pytorch'"
        ) from error
    from tensorrt_llm.disaggregated_params import DisaggregatedParams
    from tensorrt_llm.inputs import multimodal
    from tensorrt_llm.llmapi.llm_args import TorchLlmArgs

    if not hasattr(multimodal, "DisaggPrefillMultimodalInputs"):
        raise ValueError(
            f"TensorRT-LLM {tensorrt_llm.__version__} takes one embedding per request, and a video has one per pair of"
            f" frames; install {SUFFICIENT} or later"
        )
    fields = {field.name for field in dataclasses.fields(DisaggregatedParams)}
    return Support(
        version=tensorrt_llm.__version__,
        layouts="multimodal_layout" in fields,
        encoder_argument="disable_mm_encoder" in TorchLlmArgs.model_fields,
        cache_salt="cache_salt" in inspect.signature(tensorrt_llm.LLM.generate_async).parameters,
    )
