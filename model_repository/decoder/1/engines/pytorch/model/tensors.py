"""A checkpoint's tensors by their published names, in the precision that is wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from engines.pytorch.model.linear import Grouped4Bit, Int4Linear, Int8Linear, Linear, dense_linear, group_size_of
from engines.pytorch.model.quantised_checkpoint import Weight, check_quantisation, read_weight


class CheckpointTensors:
    """Reads `folder`/model.safetensors, or the shards that model.safetensors.index.json names."""

    def __init__(
        self, folder: Path, quantisation: Mapping[str, Any], device: torch.device, dtype: torch.dtype, precision: str
    ) -> None:
        """precision: of linear weights: int8, int4, or auto for what the checkpoint has.

        Raises ValueError for a missing file and for a format of quantisation that is not read.
        """
        if quantisation:
            check_quantisation(quantisation)
        self._folder = folder
        self._quantisation = quantisation
        self._device = device
        self._dtype = dtype
        self._precision = precision
        self._get: dict[str, Callable[[str], torch.Tensor]] = {}
        index = folder / "model.safetensors.index.json"
        names = ["model.safetensors"]
        if index.exists():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        for name in names:
            path = folder / name
            if not path.exists():
                raise ValueError(
                    f"{path} is missing; model.safetensors or the shards that its index names are accepted"
                )
            file = safe_open(str(path), framework="pt")
            self._get.update(dict.fromkeys(file.keys(), file.get_tensor))

    def read(self, name: str, *shape: int) -> torch.Tensor:
        """A dense tensor. Raises ValueError where it is missing, or has another shape than config.json says."""
        tensor = self._read(name)
        self._check(name, tuple(tensor.shape), shape)
        return tensor.to(self._dtype)

    def linear(self, inputs: int, outputs: Mapping[str, int]) -> Linear:
        """One linear layer of several, by their names and their outputs. Raises ValueError as `read` does."""
        weight = _joined([self._weight(name, size, inputs) for name, size in outputs.items()])
        if self._precision == "int8":
            return Int8Linear.quantise(weight.dequantised() if isinstance(weight, Grouped4Bit) else weight)
        if isinstance(weight, Grouped4Bit):
            return Int4Linear.pack(weight)
        if self._precision == "int4":
            return Int4Linear.pack(Grouped4Bit.quantise(weight, group_size_of(weight.shape[1])))
        return dense_linear(weight.to(self._dtype))

    def _weight(self, name: str, *shape: int) -> Weight:
        weight = read_weight(self._read, self._get.__contains__, name, self._quantisation)
        stored = weight.values if isinstance(weight, Grouped4Bit) else weight
        self._check(f"{name}.weight", tuple(stored.shape), shape)
        return weight

    def _read(self, name: str) -> torch.Tensor:
        if name not in self._get:
            raise ValueError(f"{self._folder} has no tensor {name}")
        return self._get[name](name).to(self._device)

    def _check(self, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if shape != expected:
            raise ValueError(f"tensor {name} in {self._folder} is {list(shape)}; config.json says {list(expected)}")


@dataclass(frozen=True)
class LayerTensors:
    """One layer's tensors, by their names in the layer."""

    checkpoint: CheckpointTensors
    prefix: str

    def read(self, name: str, *shape: int) -> torch.Tensor:
        """The weight of a norm."""
        return self.checkpoint.read(f"{self.prefix}.{name}.weight", *shape)

    def linear(self, inputs: int, outputs: Mapping[str, int]) -> Linear:
        """One linear layer of several, by their names and their outputs."""
        return self.checkpoint.linear(inputs, {f"{self.prefix}.{name}": size for name, size in outputs.items()})


def _joined(parts: Sequence[Weight]) -> Weight:
    """The outputs of all parts, one after the other."""
    if all(isinstance(part, Grouped4Bit) for part in parts):
        grouped = [part for part in parts if isinstance(part, Grouped4Bit)]
        if len({part.group_size for part in grouped}) == 1:
            return Grouped4Bit(*(torch.cat(tensors) for tensors in zip(*map(_tensors, grouped), strict=True)))
    return torch.cat([part.dequantised() if isinstance(part, Grouped4Bit) else part for part in parts])


def _tensors(weight: Grouped4Bit) -> tuple[torch.Tensor, ...]:
    return weight.values, weight.scales, weight.zeros
