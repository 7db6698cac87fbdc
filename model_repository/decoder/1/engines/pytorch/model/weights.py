"""The text decoder's weights, with projections fused.

The embeddings and the head stay dense, as published quantised checkpoints have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from engines.checkpoint import ModelConfig
from engines.pytorch.model.linear import Linear
from engines.pytorch.model.operations import Operations
from engines.pytorch.model.tensors import CheckpointTensors, LayerTensors


class Mlp(Protocol):
    """The feed-forward part of a layer."""

    def __call__(self, hidden: torch.Tensor, operations: Operations) -> torch.Tensor:
        """[tokens, hidden] of [tokens, hidden]"""


ReadMlp = Callable[[LayerTensors, ModelConfig], Mlp]


@dataclass(frozen=True)
class LayerWeights:
    """One layer."""

    input_norm: torch.Tensor
    qkv: Linear
    """Queries, keys and values, one after the other."""
    query_key_norm: torch.Tensor
    """[heads + kv heads, head_dim], a head's own weight repeated for each head."""
    output: Linear
    post_attention_norm: torch.Tensor
    mlp: Mlp


@dataclass(frozen=True)
class ModelWeights:
    """All layers, and what is before and behind them."""

    embeddings: torch.Tensor
    """[vocabulary, hidden]"""
    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    head: torch.Tensor
    """[vocabulary, hidden], the same tensor as the embeddings where they are tied."""


def read_weights(
    folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype, precision: str, read_mlp: ReadMlp
) -> ModelWeights:
    """Reads a checkpoint. precision: of linear weights: int8, int4, or auto for what the checkpoint has.

    Raises ValueError for a missing file or tensor, or one of a shape that config.json does not say.
    """
    tensors = CheckpointTensors(folder, config.quantisation, device, dtype, precision)
    hidden, model = config.hidden_size, "model.language_model"
    embeddings = tensors.read(f"{model}.embed_tokens.weight", config.vocab_size, hidden)
    layers = [LayerTensors(tensors, f"{model}.layers.{index}") for index in range(config.num_hidden_layers)]
    return ModelWeights(
        embeddings=embeddings,
        layers=tuple(_read_layer(layer, config, read_mlp) for layer in layers),
        norm=tensors.read(f"{model}.norm.weight", hidden),
        head=embeddings if config.tie_word_embeddings else tensors.read("lm_head.weight", config.vocab_size, hidden),
    )


def _read_layer(tensors: LayerTensors, config: ModelConfig, read_mlp: ReadMlp) -> LayerWeights:
    hidden, head_dim = config.hidden_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    queries, keys = heads * head_dim, kv_heads * head_dim
    return LayerWeights(
        input_norm=tensors.read("input_layernorm", hidden),
        qkv=tensors.linear(hidden, {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}),
        query_key_norm=torch.cat(
            [
                tensors.read("self_attn.q_norm", head_dim).expand(heads, -1),
                tensors.read("self_attn.k_norm", head_dim).expand(kv_heads, -1),
            ]
        ),
        output=tensors.linear(queries, {"self_attn.o_proj": hidden}),
        post_attention_norm=tensors.read("post_attention_layernorm", hidden),
        mlp=read_mlp(tensors, config),
    )
