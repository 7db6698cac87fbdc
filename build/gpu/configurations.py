"""The models' configurations for a particular GPU: the repository's own, changed for what fits there."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

from build.assemble.checkpoint_config import PATCH_VALUES
from build.assemble.repository import configurations
from build.gpu.planner.memory import CHUNKS_IN_FLIGHT, feature_pool_bytes
from build.gpu.planner.models import Model
from build.gpu.planner.planning import MAX_BATCH, Fit
from build.gpu.planner.profiles import Profile
from build.gpu.planner.vision_profiles import Band, bands

# The one that everything is on.
GPU = 0
# The decoder's parameters have these for the planner's precisions; auto: the checkpoint's own, 16 bits.
PYTORCH_NAMES = {"bf16": "auto", "int4": "int4", "int8": "int8"}
# Tokens of a block of TensorRT-LLM's KV cache.
TOKENS_PER_BLOCK = 32
TENSORRT_PLAN_FILE = "model.plan"


def settings(fit: Fit) -> dict[str, str]:
    """The parameters that a fit decides, as `build.assemble.repository` takes them."""
    common = {
        "video_preprocess.context_length": str(fit.context_tokens),
        "video_preprocess.chunk_tokens": str(fit.profile.chunk_tokens),
        "decoder.context_length": str(fit.context_tokens),
        "decoder.kv_cache_tokens": str(fit.cache_tokens),
        "decoder.max_step_tokens": str(fit.profile.max_step_tokens),
        "decoder.max_batch": str(MAX_BATCH),
        "decoder.chunks_in_flight": str(CHUNKS_IN_FLIGHT),
    }
    if fit.profile.is_cpu:
        return common
    if fit.profile.engine == "tensorrt_llm":
        return {**common, "decoder.engine": fit.profile.engine, "decoder.block_size": str(TOKENS_PER_BLOCK)}
    return {
        **common,
        "decoder.engine": fit.profile.engine,
        "decoder.device": "cuda",
        "decoder.weights": PYTORCH_NAMES[fit.weights],
        "decoder.kv_cache_dtype": PYTORCH_NAMES[fit.kv_cache],
    }


def server_options(fit: Fit) -> list[str]:
    """Options that Triton itself needs for what the configurations say, beside those that it is always started with."""
    if fit.profile.is_cpu:
        return []
    pool = feature_pool_bytes(fit.profile, fit.model, fit.concurrency)
    return [f"--cuda-memory-pool-byte-size={GPU}:{pool}"]


def tensorrt_plan_bands(profile: Profile) -> tuple[Band, ...]:
    """The optimisation profiles of the vision tower's TensorRT plan."""
    return bands(chunk_tokens=profile.chunk_tokens, max_frame_tokens=profile.max_frame_tokens)


def gpu_configurations(fit: Fit, chosen: Mapping[str, str]) -> dict[str, str]:
    """Each model's config.pbtxt for a GPU, by the model's name, with the settings `chosen`."""
    texts = configurations(chosen)
    texts["vision_encoder"] = text_format.MessageToString(
        _vision_encoder(_parse(texts["vision_encoder"]), fit.profile, fit.model), as_utf8=True
    )
    texts["decoder"] = text_format.MessageToString(_decoder(_parse(texts["decoder"]), fit.profile), as_utf8=True)
    texts["qwen3_vl"] = text_format.MessageToString(_ensemble(_parse(texts["qwen3_vl"])), as_utf8=True)
    return texts


def _parse(text: str) -> ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _vision_encoder(python: ModelConfig, profile: Profile, model: Model) -> ModelConfig:
    """Stage 2 as a TensorRT plan: the same tensors, except the seconds that only a program of ours can measure."""
    config = ModelConfig(platform="tensorrt_plan", max_batch_size=0, default_model_filename=TENSORRT_PLAN_FILE)
    head_dim = model.vision.head_dim
    config.input.extend(python.input)
    config.output.extend(output for output in python.output if output.name == "features")
    # The TensorRT plan fixes what the ONNX graph leaves open, and Triton compares the two.
    fixed = {"patches": [-1, -1, PATCH_VALUES], "rotary_cos": [-1, head_dim], "rotary_sin": [-1, head_dim]}
    for tensor in config.input:
        tensor.dims[:] = fixed.get(tensor.name, tensor.dims)
    config.output[0].dims[:] = [-1, -1, model.vision.feature_width]
    group = config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_GPU, gpus=[GPU])
    boxes = tensorrt_plan_bands(profile)
    group.profile.extend(str(index) for index in range(len(boxes)))
    for index, box in enumerate(boxes):
        _warm_up(config, f"profile {index}", box, head_dim)
    return config


def _warm_up(config: ModelConfig, name: str, box: Band, head_dim: int) -> None:
    """A chunk of zeros in every profile: the first request does not pay for loading kernels."""
    warm_up = config.model_warmup.add(name=name)
    shapes = {
        "patches": [box.opt_frames, box.opt_patches, PATCH_VALUES],
        "position_indices": [box.opt_patches, 4],
        "position_weights": [box.opt_patches, 4],
        "rotary_cos": [box.opt_patches, head_dim],
        "rotary_sin": [box.opt_patches, head_dim],
    }
    for tensor in config.input:
        entry = warm_up.inputs[tensor.name]
        entry.data_type, entry.zero_data = tensor.data_type, True
        entry.dims.extend(shapes[tensor.name])


def _decoder(config: ModelConfig, profile: Profile) -> ModelConfig:
    """Stage 3 takes features where its engine wants them: on the GPU; TensorRT-LLM by handles to host memory."""
    if profile.engine == "pytorch":
        config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = "no"
    return config


def _ensemble(config: ModelConfig) -> ModelConfig:
    for step in config.ensemble_scheduling.step:
        if step.model_name == "vision_encoder":
            del step.output_map["encode_seconds"]
        if step.model_name == "decoder":
            del step.input_map["encode_seconds"]
    # Credits already bound each session's chunks; this is a second fence in the server (from 25.12 on), and one limit
    # for all requests together: every session's credits, the first two chunks and a heartbeat.
    config.ensemble_scheduling.max_inflight_requests = MAX_BATCH * (CHUNKS_IN_FLIGHT + 3)
    return config
