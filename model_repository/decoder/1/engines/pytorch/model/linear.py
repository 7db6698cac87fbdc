"""The decoder's linear layers: dense, or with weights of 8 or 4 bits that PyTorch's own kernels multiply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

# The kernels for packed weights are fast for these only, on CPUs and GPUs; activations are rounded to it on the way.
ACTIVATIONS = torch.bfloat16
# Rows up to which the 8-bit kernel is the faster one on a CPU; above, weights are spread out and multiplied densely.
_MAX_KERNEL_ROWS = 8
# The groups that the 4-bit kernels take.
GROUP_SIZES = (128, 64, 32)
# Tiles along the inputs that a GPU's kernel takes at a time.
_INNER_TILES = 8
# oneDNN compiles a kernel for each number of rows and keeps it: above this many, rows come in multiples of it.
_FEW_ROWS = 64


class Linear(Protocol):
    """Multiplies hidden states [rows, inputs] by its weight [outputs, inputs]: [rows, outputs], in the same dtype."""

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class DenseLinear:
    """weight: [outputs, inputs]"""

    weight: torch.Tensor

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.weight)


@dataclass(frozen=True)
class PackedLinear:
    """In the order in which oneDNN reads it: on a CPU the plain order is packed anew in every call, which takes several
    times as long as multiplying a few rows.

    weight: [outputs, inputs], opaque
    """

    weight: torch.Tensor

    @classmethod
    def pack(cls, weight: torch.Tensor) -> PackedLinear:
        return cls(torch.ops.mkldnn._reorder_linear_weight(weight, _MAX_KERNEL_ROWS))

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = len(hidden)
        if rows > _FEW_ROWS:
            hidden = F.pad(hidden, (0, 0, 0, -rows % _FEW_ROWS))
        multiplied: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self.weight, None, "none", [], "")
        return multiplied[:rows]


def dense_linear(weight: torch.Tensor) -> Linear:
    """Keeps the weight [outputs, inputs] in its own precision."""
    packs = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return PackedLinear.pack(weight) if packs else DenseLinear(weight)


@dataclass(frozen=True)
class Int8Linear:
    """One scale for each output.

    values: int8 [outputs, inputs]; scales: bfloat16 [outputs]
    """

    values: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def quantise(cls, weight: torch.Tensor) -> Int8Linear:
        """Rounds to the nearest of 255 steps between an output's extremes."""
        scales = (weight.abs().amax(dim=1).float() / 127).clamp(min=1e-12).to(ACTIVATIONS)
        values = (weight.float() / scales.float().unsqueeze(1)).round().clamp(-127, 127)
        return cls(values.to(torch.int8), scales)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        states = hidden.to(ACTIVATIONS)
        if len(states) <= _MAX_KERNEL_ROWS and states.device.type == "cpu":
            multiplied = torch._weight_int8pack_mm(states, self.values, self.scales)
        else:
            multiplied = F.linear(states, self.values.to(ACTIVATIONS)) * self.scales
        return multiplied.to(hidden.dtype)


@dataclass(frozen=True)
class Grouped4Bit:
    """A weight of 4 bits as it is stored: (values - zeros) * scales, a scale and a zero per group of inputs.

    values: uint8 [outputs, inputs], 0 to 15; scales: float32 [outputs, groups]; zeros: float32 [outputs, groups]
    """

    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    @property
    def group_size(self) -> int:
        return self.values.shape[1] // self.scales.shape[1]

    @classmethod
    def quantise(cls, weight: torch.Tensor, group_size: int) -> Grouped4Bit:
        """Rounds to the nearest of 16 steps between a group's extremes."""
        groups = weight.float().unflatten(1, (-1, group_size))
        low, high = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
        scales = ((high - low) / 15).clamp(min=1e-12)
        zeros = (-low / scales).round()
        values = (groups / scales.unsqueeze(2)).round() + zeros.unsqueeze(2)
        return cls(values.clamp(0, 15).flatten(1).to(torch.uint8), scales, zeros)

    def dequantised(self) -> torch.Tensor:
        """float32 [outputs, inputs]"""
        groups = self.values.unflatten(1, (-1, self.group_size)).float()
        return ((groups - self.zeros.unsqueeze(2)) * self.scales.unsqueeze(2)).flatten(1)


@dataclass(frozen=True)
class Int4Linear:
    """A scale and an offset for each group of inputs.

    packed: the device's own layout; scales_and_offsets: bfloat16 [groups, outputs, 2], offsets being those of value 8
    """

    packed: torch.Tensor
    scales_and_offsets: torch.Tensor
    group_size: int

    @classmethod
    def pack(cls, weight: Grouped4Bit) -> Int4Linear:
        offsets = (8 - weight.zeros) * weight.scales
        scales_and_offsets = torch.stack((weight.scales, offsets), dim=2).transpose(0, 1).contiguous().to(ACTIVATIONS)
        if weight.values.device.type == "cpu":
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight.values.to(torch.int32), 1)
        else:
            pairs = weight.values[:, ::2] << 4 | weight.values[:, 1::2]
            packed = torch.ops.aten._convert_weight_to_int4pack(pairs, _INNER_TILES)
        return cls(packed, scales_and_offsets, weight.group_size)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        operators = torch.ops.aten
        on_cpu = hidden.device.type == "cpu"
        multiply = operators._weight_int4pack_mm_for_cpu if on_cpu else operators._weight_int4pack_mm
        states = hidden.to(ACTIVATIONS)
        return multiply(states, self.packed, self.group_size, self.scales_and_offsets).to(hidden.dtype)


def group_size_of(inputs: int) -> int:
    """The largest group that divides `inputs`. Raises ValueError where none does."""
    for size in GROUP_SIZES:
        if inputs % size == 0:
            return size
    raise ValueError(
        f"a weight has {inputs} inputs; for weights of 4 bits, a multiple of {GROUP_SIZES[-1]} is accepted"
    )
