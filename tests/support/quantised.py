"""Quantised checkpoints as their tools publish them, made from a dense one; and the same weights dequantised."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

GROUP = 32
# The first of eight outputs goes into the lowest four bits, the third into the next, …: AutoAWQ's order.
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]

Tensors = dict[str, torch.Tensor]


def _round(weight: torch.Tensor, bits: int, groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values [outputs, inputs], scales and zeros [outputs, groups] in float16's precision."""
    count = int(groups.max()) + 1
    members = [weight[:, groups == group] for group in range(count)]
    low = torch.stack([m.amin(1) for m in members], 1).clamp(max=0)
    high = torch.stack([m.amax(1) for m in members], 1).clamp(min=0)
    scales = ((high - low) / (2**bits - 1)).half().float()
    zeros = (-low / scales).round().clamp(1, 2**bits - 1)
    values = ((weight / scales[:, groups]).round() + zeros[:, groups]).clamp(0, 2**bits - 1)
    return values, scales, zeros


def _pack(values: torch.Tensor, bits: int, order: list[int] | None = None) -> torch.Tensor:
    """Neighbours of the last axis in an int32."""
    per = 32 // bits
    parts = values.to(torch.int64).unflatten(-1, (-1, per))[..., order or list(range(per))]
    return (parts << torch.arange(0, 32, bits)).sum(-1).to(torch.int32)


def awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    groups = torch.arange(weight.shape[1]) // GROUP
    values, scales, zeros = _round(weight, 4, groups)
    tensors = {
        "qweight": _pack(values.T, 4, AWQ_ORDER),
        "qzeros": _pack(zeros.T, 4, AWQ_ORDER),
        "scales": scales.T.half(),
    }
    return tensors, (values - zeros[:, groups]) * scales[:, groups]


def gptq(weight: torch.Tensor, *, bits: int = 4, desc_act: bool = False) -> tuple[Tensors, torch.Tensor]:
    groups = torch.arange(weight.shape[1]) // GROUP
    if desc_act:
        groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))]
    values, scales, zeros = _round(weight, bits, groups)
    tensors = {
        "qweight": _pack(values, bits).T,
        "qzeros": _pack(zeros.T - 1, bits),
        "scales": scales.T.half(),
        "g_idx": groups.to(torch.int32),
    }
    return tensors, (values - zeros[:, groups]) * scales[:, groups]


def fp8_blocks(weight: torch.Tensor, block: int = 48) -> tuple[Tensors, torch.Tensor]:
    rows, columns = (torch.arange(size) // block for size in weight.shape)
    scales = torch.zeros(int(rows.max()) + 1, int(columns.max()) + 1)
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            scales[row, column] = weight[rows == row][:, columns == column].abs().max() / 448
    spread = scales[rows][:, columns]
    values = (weight / spread).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale_inv": scales}, values.float() * spread


def fp8_outputs(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scales = weight.abs().amax(1, keepdim=True) / 448
    values = (weight / scales).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale": scales}, values.float() * scales


FORMATS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]]] = {
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}, awq),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP}, gptq),
    "gptq of 8 bits": ({"quant_method": "gptq", "bits": 8, "group_size": GROUP}, lambda w: gptq(w, bits=8)),
    "gptq in another order": (
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True},
        lambda w: gptq(w, desc_act=True),
    ),
    "fp8 in blocks": ({"quant_method": "fp8", "weight_block_size": [48, 48]}, fp8_blocks),
    "fp8 by compressed-tensors": ({"quant_method": "compressed-tensors", "format": "float-quantized"}, fp8_outputs),
}


def publish(dense: Path, name: str, folder: Path) -> tuple[Path, Path]:
    """(the quantised checkpoint, a dense one with the same weights), both below `folder`."""
    quantisation, quantise = FORMATS[name]
    packed: Tensors = {}
    plain: Tensors = {}
    for key, tensor in load_file(dense / "model.safetensors").items():
        linear, _, last = key.rpartition(".")
        if ".layers." in key and linear.endswith("_proj") and last == "weight":
            tensors, plain[key] = quantise(tensor)
            packed |= {f"{linear}.{part}": value.contiguous() for part, value in tensors.items()}
        else:
            packed[key] = plain[key] = tensor
    folders = folder / "quantised", folder / "dequantised"
    for target, weights in zip(folders, (packed, plain), strict=True):
        shutil.copytree(dense, target)
        save_file({key: value.contiguous() for key, value in weights.items()}, target / "model.safetensors")
    config = json.loads((dense / "config.json").read_text())
    (folders[0] / "config.json").write_text(json.dumps({**config, "quantization_config": quantisation}))
    return folders
