"""The text decoder's weights, read from safetensors by the published names, with projections fused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from engine.checkpoint import ModelConfig


@dataclass(frozen=True)
class LayerWeights:
    """Linear weights are [outputs, inputs].

    qkv: queries, keys and values, one after the other; gate_up: gate, then up
    query_key_norm: [heads + kv heads, head_dim], a head's own weight repeated for each head
    """

    input_norm: torch.Tensor
    qkv: torch.Tensor
    query_key_norm: torch.Tensor
    output: torch.Tensor
    post_attention_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True)
class ModelWeights:
    """embeddings, head: [vocabulary, hidden], the same tensor where they are tied."""

    embeddings: torch.Tensor
    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    head: torch.Tensor


def load_weights(folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> ModelWeights:
    """Reads `folder`/model.safetensors, or the shards that model.safetensors.index.json names.

    Raises ValueError for a missing file or tensor, or one of a shape that config.json does not say.
    """
    read = _Tensors(folder, device, dtype)
    heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size

    def layer(index: int) -> LayerWeights:
        def get(name: str, *shape: int) -> torch.Tensor:
            return read(f"model.language_model.layers.{index}.{name}.weight", *shape)

        return LayerWeights(
            input_norm=get("input_layernorm", hidden),
            qkv=torch.cat(
                [
                    get("self_attn.q_proj", heads * head_dim, hidden),
                    get("self_attn.k_proj", kv_heads * head_dim, hidden),
                    get("self_attn.v_proj", kv_heads * head_dim, hidden),
                ]
            ),
            query_key_norm=torch.cat(
                [
                    get("self_attn.q_norm", head_dim).expand(heads, -1),
                    get("self_attn.k_norm", head_dim).expand(kv_heads, -1),
                ]
            ),
            output=get("self_attn.o_proj", hidden, heads * head_dim),
            post_attention_norm=get("post_attention_layernorm", hidden),
            gate_up=torch.cat([get("mlp.gate_proj", inner, hidden), get("mlp.up_proj", inner, hidden)]),
            down=get("mlp.down_proj", hidden, inner),
        )

    embeddings = read("model.language_model.embed_tokens.weight", config.vocab_size, hidden)
    return ModelWeights(
        embeddings=embeddings,
        layers=tuple(layer(index) for index in range(config.num_hidden_layers)),
        norm=read("model.language_model.norm.weight", hidden),
        head=embeddings if config.tie_word_embeddings else read("lm_head.weight", config.vocab_size, hidden),
    )


class _Tensors:
    """The checkpoint's tensors by name, whichever file each is in."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._folder = folder
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
        if name not in self._get:
            raise ValueError(f"{self._folder} has no tensor {name}")
        tensor = self._get[name](name)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"tensor {name} in {self._folder} is {list(tensor.shape)}; config.json says {list(shape)}")
        return tensor.to(self._device, self._dtype)
