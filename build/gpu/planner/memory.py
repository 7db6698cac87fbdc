"""The parts of a deployment's memory."""

from dataclasses import dataclass

from build.assemble.checkpoint_config import MERGED_PATCHES, PATCH_VALUES
from build.gpu.planner.models import Model
from build.gpu.planner.profiles import MIB, Profile
from build.gpu.planner.vision_profiles import bands
from build.gpu.planner.weights import decoder_bytes, kv_bytes_per_token, vision_bytes

# A CUDA context with its loaded kernels, per process: the server has the vision plan, another process the decoder.
CUDA_CONTEXT_BYTES = 500 * MIB
GPU_PROCESSES = 2
# cuBLAS workspaces and the memory pools of captured CUDA graphs.
GPU_WORKSPACE_BYTES = 512 * MIB
# An allocator cannot use all of the memory that it holds.
FRAGMENTATION_SHARE = 0.03

# The other stages and the server itself on a CPU: three Python processes with PyTorch, ONNX Runtime and FFmpeg.
CPU_PROCESSES_BYTES = 2560 * MIB

# Credits: chunks that stage 1 may have in flight per session (decoder/config.pbtxt).
CHUNKS_IN_FLIGHT = 4
# Stage 3 notes this of a token in the host's memory beside keys and values: what it is, where it lies, its block's
# name. 224 as `make bench-context` measures them, from 16,384 to 49,152 tokens.
TOKEN_BYTES = 256
# The PyTorch engine has so much of an 8-bit context in 16 bits at once (decoder: engines/pytorch/cache/layer_cache.py).
READ_BACK_TOKENS = 65_536


@dataclass(frozen=True)
class Part:
    """Memory for one purpose."""

    name: str
    bytes: int
    exact: bool
    """Counted from tensors; otherwise an upper bound or an allowance."""


def fixed_parts(profile: Profile, model: Model, weights: str) -> tuple[Part, ...]:
    """Memory that does not depend on how long or how many the requests are."""
    parts = [
        Part("decoder weights", decoder_bytes(model, weights), exact=True),
        Part("vision tower weights", vision_bytes(model, profile.vision), exact=True),
        Part("vision tower activations", _vision_activation_bytes(profile, model), exact=False),
        Part("decoder activations", step_activation_bytes(profile, model), exact=False),
    ]
    if profile.is_cpu:
        parts.append(Part("processes and libraries", CPU_PROCESSES_BYTES, exact=False))
    else:
        parts += [
            Part("CUDA contexts", GPU_PROCESSES * CUDA_CONTEXT_BYTES, exact=False),
            Part("workspaces and CUDA graphs", GPU_WORKSPACE_BYTES, exact=False),
        ]
    parts.append(Part("fragmentation", int(profile.memory_bytes * FRAGMENTATION_SHARE), exact=False))
    return tuple(parts)


def request_parts(
    profile: Profile, model: Model, kv_cache: str, context_tokens: int, concurrency: int
) -> tuple[Part, ...]:
    """Memory that grows with `concurrency` requests of `context_tokens` each, as if a prompt were all video."""
    tokens = context_tokens * concurrency
    parts = [
        Part("KV cache", kv_bytes_per_token(model, kv_cache) * tokens, exact=True),
        Part("features", _feature_bytes(profile, model, context_tokens, concurrency), exact=True),
    ]
    if profile.engine == "pytorch" and kv_cache == "int8":
        parts.append(Part("keys and values read back", _read_back_bytes(model, context_tokens), exact=False))
    if profile.is_cpu:
        parts.append(Part("what is noted of tokens", TOKEN_BYTES * tokens, exact=False))
    return tuple(parts)


def step_activation_bytes(profile: Profile, model: Model) -> int:
    """The largest live set of one engine step of `max_step_tokens`: a layer's tensors, and the logits' sampling.

    In a layer the residual, its norm and the attention's or the MLP's tensors live together; sampling sorts the
    probabilities of every sequence in the batch in float32 with 64-bit indices.
    """
    width = 4 if profile.is_cpu else 2
    attention = (model.heads * 2 + model.kv_heads * 2) * model.head_dim
    # Gate and up projection, the activated gate, and their product.
    mlp = 4 * model.intermediate
    per_token = 3 * model.hidden + max(attention, mlp)
    batch = 64
    return profile.max_step_tokens * per_token * width + batch * model.vocabulary * (4 + 4 + 8)


def _vision_activation_bytes(profile: Profile, model: Model) -> int:
    if profile.is_cpu:
        # One context, and attention that never holds all scores: the largest chunk or the largest picture.
        return _vision_box_bytes(profile, model, 1, _largest_chunk_patches(profile), scores=False)
    # Triton keeps an execution context with memory of its own for every optimisation profile. Whether TensorRT fuses
    # the attention is its choice: the bound counts the scores of all pairs of patches in one layer.
    return sum(
        _vision_box_bytes(profile, model, band.max_frames, band.max_patches, scores=True)
        for band in bands(chunk_tokens=profile.chunk_tokens, max_frame_tokens=profile.max_frame_tokens)
    )


def _vision_box_bytes(profile: Profile, model: Model, frames: int, patches: int, *, scores: bool) -> int:
    width = 4 if profile.is_cpu else 2
    # The residual, its norm, queries, keys, values and their rotated copies, or the MLP's hidden layer.
    per_patch = 2 * model.vision.hidden + max(6 * model.vision.hidden, model.vision.intermediate)
    inputs_and_outputs = PATCH_VALUES + model.vision.feature_width * 4 // MERGED_PATCHES
    activations = frames * patches * (per_patch * width + inputs_and_outputs)
    return activations + (frames * model.vision.heads * patches**2 * width if scores else 0)


def _largest_chunk_patches(profile: Profile) -> int:
    return max(profile.chunk_tokens, profile.max_frame_tokens) * MERGED_PATCHES


def _feature_bytes(profile: Profile, model: Model, context_tokens: int, concurrency: int) -> int:
    if profile.engine == "tensorrt_llm":
        # It takes all rows of a prompt at once, in the decoder's 16 bits; the engine prefills one prompt at a time.
        return context_tokens * model.vision.feature_width * 2
    # Only the chunks that the credits allow, as float32 from stage 2.
    chunks = concurrency * CHUNKS_IN_FLIGHT * profile.chunk_tokens * model.vision.feature_width * 4
    # On a GPU stage 3 copies each within Triton's pool, and keeps it in 16 bits until it is prefilled.
    return chunks if profile.is_cpu else chunks * 5 // 2


def feature_pool_bytes(profile: Profile, model: Model, concurrency: int) -> int:
    """Triton's own pool of GPU memory, for features on their way from stage 2 to stage 3.

    What does not fit there takes the way through host memory. TensorRT-LLM's all do: it takes them from there.
    """
    if profile.engine == "tensorrt_llm":
        return 0
    return 2 * concurrency * CHUNKS_IN_FLIGHT * profile.chunk_tokens * model.vision.feature_width * 4


def _read_back_bytes(model: Model, context_tokens: int) -> int:
    """Keys, values and values without their scales of one layer, in 16 bits, for as many tokens as are read at once."""
    return 3 * min(context_tokens, READ_BACK_TOKENS) * model.kv_heads * model.head_dim * 2
