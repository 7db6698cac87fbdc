"""The text decoder's weights, read from safetensors by the published names, with projections fused.

The embeddings and the head stay dense, as published quantised checkpoints have them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from engines.checkpoint import ModelConfig
from engines.pytorch.model.linear import Grouped4Bit, Int4Linear, Int8Linear, Linear, dense_linear, group_size_of
from engines.pytorch.model.quantised_checkpoint import Weight, check_quantisation, read_weight


@dataclass(frozen=True)
class LayerWeights:
    """
    qkv: queries, keys and values, one after the other; gate_up: gate, then up
    query_key_norm: [heads + kv heads, head_dim], a head's own weight repeated for each head
    """

    input_norm: torch.Tensor
    qkv: Linear
    query_key_norm: torch.Tensor
    output: Linear
    post_attention_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class ModelWeights:
    """embeddings, head: [vocabulary, hidden], the same tensor where they are tied."""

    embeddings: torch.Tensor
    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    head: torch.Tensor


def load_weights(
    folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype, precision: str = "auto"
) -> ModelWeights:
    """Reads `folder`/model.safetensors, or the shards that model.safetensors.index.json names.

    precision: of linear weights: int8, int4, or auto for what the checkpoint has.

    Raises ValueError for a missing file or tensor, or one of a shape that config.json does not say.
    """
    if config.quantisation:
        check_quantisation(config.quantisation)
    read = _Tensors(folder, config.quantisation, device, dtype)
    heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size

    def layer(index: int) -> LayerWeights:
        def get(name: str, *shape: int) -> torch.Tensor:
            return read(f"model.language_model.layers.{index}.{name}.weight", *shape)

        def linear(inputs: int, outputs: dict[str, int]) -> Linear:
            prefix = f"model.language_model.layers.{index}"
            parts = [read.linear(f"{prefix}.{name}", size, inputs) for name, size in outputs.items()]
            return _prepare(_joined(parts), precision, dtype)

        queries, keys = heads * head_dim, kv_heads * head_dim
        return LayerWeights(
            input_norm=get("input_layernorm", hidden),
            qkv=linear(hidden, {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}),
            query_key_norm=torch.cat(
                [
                    get("self_attn.q_norm", head_dim).expand(heads, -1),
                    get("self_attn.k_norm", head_dim).expand(kv_heads, -1),
                ]
            ),
            output=linear(queries, {"self_attn.o_proj": hidden}),
            post_attention_norm=get("post_attention_layernorm", hidden),
            gate_up=linear(hidden, {"mlp.gate_proj": inner, "mlp.up_proj": inner}),
            down=linear(inner, {"mlp.down_proj": hidden}),
        )

    embeddings = read("model.language_model.embed_tokens.weight", config.vocab_size, hidden)
    return ModelWeights(
        embeddings=embeddings,
        layers=tuple(layer(index) for index in range(config.num_hidden_layers)),
        norm=read("model.language_model.norm.weight", hidden),
        head=embeddings if config.tie_word_embeddings else read("lm_head.weight", config.vocab_size, hidden),
    )


def _joined(parts: Sequence[Weight]) -> Weight:
    """The outputs of all parts, one after the other."""
    if all(isinstance(part, Grouped4Bit) for part in parts):
        grouped = [part for part in parts if isinstance(part, Grouped4Bit)]
        if len({part.group_size for part in grouped}) == 1:
            return Grouped4Bit(*(torch.cat(tensors) for tensors in zip(*map(_tensors, grouped), strict=True)))
    return torch.cat([part.dequantised() if isinstance(part, Grouped4Bit) else part for part in parts])


def _tensors(weight: Grouped4Bit) -> tuple[torch.Tensor, ...]:
    return weight.values, weight.scales, weight.zeros


def _prepare(weight: Weight, precision: str, dtype: torch.dtype) -> Linear:
    if precision == "int8":
        return Int8Linear.quantise(weight.dequantised() if isinstance(weight, Grouped4Bit) else weight)
    if isinstance(weight, Grouped4Bit):
        return Int4Linear.pack(weight)
    if precision == "int4":
        return Int4Linear.pack(Grouped4Bit.quantise(weight, group_size_of(weight.shape[1])))
    return dense_linear(weight.to(dtype))


class _Tensors:
    """The checkpoint's tensors by name, whichever file each is in."""

    def __init__(self, folder: Path, quantisation: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> None:
        self._folder = folder
        self._quantisation = quantisation
        self._device = device
        self._dtype = dtype
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

    def __call__(self, name: str, *shape: int) -> torch.Tensor:
        tensor = self._read(name)
        self._check(name, tuple(tensor.shape), shape)
        return tensor.to(self._dtype)

    def linear(self, name: str, *shape: int) -> Weight:
        """The weight [outputs, inputs] of a linear layer, quantised or not."""
        weight = read_weight(self._read, self._get.__contains__, name, self._quantisation)
        self._check(
            f"{name}.weight", tuple((weight.values if isinstance(weight, Grouped4Bit) else weight).shape), shape
        )
        return weight

    def _read(self, name: str) -> torch.Tensor:
        if name not in self._get:
            raise ValueError(f"{self._folder} has no tensor {name}")
        return self._get[name](name).to(self._device)

    def _check(self, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if shape != expected:
            raise ValueError(f"tensor {name} in {self._folder} is {list(shape)}; config.json says {list(expected)}")
