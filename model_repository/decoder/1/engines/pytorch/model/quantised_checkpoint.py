"""Weights of published quantised checkpoints, by the tensors that their formats document.

- AWQ (AutoAWQ's "gemm"): qweight, qzeros, scales; 4 bits, eight values of neighbouring outputs in an int32
- GPTQ (AutoGPTQ, GPTQModel): the same names and g_idx; 4 or 8 bits, values of neighbouring inputs in an int32
- FP8 in blocks (DeepSeek's, Qwen's own): weight, weight_scale_inv
- FP8 by compressed-tensors (LLM Compressor): weight, weight_scale
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from engines.pytorch.model.linear import GROUP_SIZES, Grouped4Bit

# Where in an int32 AutoAWQ puts the first of eight outputs, the second, …, counted in values from the lowest bits.
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)

Read = Callable[[str], torch.Tensor]
Has = Callable[[str], bool]
Weight = torch.Tensor | Grouped4Bit


def check_quantisation(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a `quantization_config` of a format that is not read here."""
    method, bits = config.get("quant_method"), config.get("bits")
    if method == "awq" and (bits != 4 or config.get("version", "gemm") != "gemm"):
        raise ValueError(f"the checkpoint is AWQ with {bits} bits, {config.get('version')}; 4 bits, gemm are accepted")
    if method == "gptq" and bits not in (4, 8):
        raise ValueError(f"the checkpoint is GPTQ with {bits} bits; 4 and 8 are accepted")
    if method == "compressed-tensors" and config.get("format") != "float-quantized":
        raise ValueError(f"the checkpoint's compressed-tensors are {config.get('format')}; float-quantized is accepted")
    if method not in ("awq", "gptq", "fp8", "compressed-tensors"):
        raise ValueError(
            f"the checkpoint's quant_method is {method!r}; awq, gptq, fp8 and compressed-tensors are accepted"
        )


def read_weight(read: Read, has: Has, name: str, config: Mapping[str, Any]) -> Weight:
    """The linear weight [outputs, inputs] called `name`: as it is in 4 bits where the kernels take it, else in float32.

    read, has: the checkpoint's tensors by their full names. Layers that the format left alone are read as they are.
    """
    if has(f"{name}.qweight"):
        return _awq(read, name) if config["quant_method"] == "awq" else _gptq(read, has, name, config)
    weight = read(f"{name}.weight")
    if has(f"{name}.weight_scale_inv"):
        rows, columns = config["weight_block_size"]
        scales = read(f"{name}.weight_scale_inv").float().repeat_interleave(rows, dim=0)[: weight.shape[0]]
        return weight.float() * scales.repeat_interleave(columns, dim=1)[:, : weight.shape[1]]
    if has(f"{name}.weight_scale"):
        scales = read(f"{name}.weight_scale").float()
        if scales.numel() not in (1, weight.shape[0]):
            raise ValueError(
                f"tensor {name}.weight_scale is {list(scales.shape)}; one scale, or one per output, is accepted"
            )
        return weight.float() * scales.reshape(-1, 1)
    return weight


def _awq(read: Read, name: str) -> Weight:
    values = _unpack(read(f"{name}.qweight"), 4)[..., _AWQ_PLACES].flatten(1)
    zeros = _unpack(read(f"{name}.qzeros"), 4)[..., _AWQ_PLACES].flatten(1)
    return _grouped(values.T, read(f"{name}.scales").T, zeros.T)


def _gptq(read: Read, has: Has, name: str, config: Mapping[str, Any]) -> Weight:
    bits = config["bits"]
    values = _unpack(read(f"{name}.qweight"), bits).transpose(1, 2).flatten(0, 1).T
    # Version 1 of the format stores zeros less one.
    offset = 0 if config.get("checkpoint_format") == "gptq_v2" else 1
    zeros = ((_unpack(read(f"{name}.qzeros"), bits).flatten(1) + offset) & (2**bits - 1)).T
    scales = read(f"{name}.scales").T.float()
    inputs = values.shape[1]
    in_order = torch.arange(inputs, device=values.device) // (inputs // scales.shape[1])
    # Inputs are in another order where the most important ones were rounded first (desc_act).
    groups = read(f"{name}.g_idx").long() if has(f"{name}.g_idx") else in_order
    if bits == 4 and torch.equal(groups, in_order):
        return _grouped(values, scales, zeros)
    return (values.float() - zeros[:, groups].float()) * scales[:, groups]


def _grouped(values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> Weight:
    weight = Grouped4Bit(values.to(torch.uint8).contiguous(), scales.float().contiguous(), zeros.float().contiguous())
    return weight if weight.group_size in GROUP_SIZES else weight.dequantised()


def _unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [rows, columns] as int32 [rows, columns, 32 / bits], the lowest bits first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=packed.device)
    return (packed.unsqueeze(-1) >> shifts) & (2**bits - 1)
