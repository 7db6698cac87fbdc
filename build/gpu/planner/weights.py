"""Exact bytes of a model's tensors in each precision that a profile offers."""

from math import prod

from build.assemble.checkpoint_config import VISION_PREFIX
from build.gpu.planner.models import Model

BYTES = {"fp32": 4, "bf16": 2}
KV_BYTES = {"fp32": 4, "bf16": 2, "int8": 1, "fp8": 1}
# The PyTorch engine's cache in 8 bits has one for the values of a token and head (16 bit); FP8 has none.
KV_SCALE_BYTES = {"int8": 2}

# ModelOpt's defaults, which TensorRT-LLM reads: FP8 has one weight and one input scale per layer (float32), INT8
# weight-only one per output channel, AWQ one per group of 128 inputs (16 bit) and one per input channel (16 bit).
# The PyTorch engine's 4 bits have a scale and an offset per group of inputs (16 bit each).
GROUP = 128


def decoder_bytes(model: Model, precision: str) -> int:
    """The text decoder's tensors. Only the layers' projections are quantised; the rest stays in 16 bits."""
    return sum(
        tensor_bytes(name, shape, precision)
        for name, shape in model.tensors.items()
        if not name.startswith(VISION_PREFIX)
    )


def vision_bytes(model: Model, precision: str) -> int:
    """The vision tower's tensors."""
    return sum(
        prod(shape) * BYTES[precision] for name, shape in model.tensors.items() if name.startswith(VISION_PREFIX)
    )


def kv_bytes_per_token(model: Model, precision: str) -> int:
    """Keys and values of all layers for one token."""
    per_head = model.head_dim * KV_BYTES[precision] + KV_SCALE_BYTES.get(precision, 0)
    return 2 * model.layers * model.kv_heads * per_head


def tensor_bytes(name: str, shape: tuple[int, ...], precision: str) -> int:
    """A tensor of the text decoder, by its published name, with the scales that it has in this precision."""
    values = prod(shape)
    if precision in BYTES:
        return values * BYTES[precision]
    if not (name.endswith("_proj.weight") and ".layers." in name):
        return values * BYTES["bf16"]
    outputs, inputs = shape
    if precision == "fp8":
        return values + 2 * 4
    if precision == "int8":
        return values + outputs * 4
    groups = -(-inputs // GROUP)
    if precision == "int4_awq":
        return values // 2 + outputs * groups * 2 + inputs * 2
    if precision == "int4":
        return values // 2 + outputs * groups * 4
    raise ValueError(f"precision {precision!r} is unknown; accepted are fp32, bf16, fp8, int8, int4, int4_awq")
