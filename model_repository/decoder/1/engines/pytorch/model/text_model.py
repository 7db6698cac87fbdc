"""Qwen3-VL's text decoder on a flat batch of tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from engines.checkpoint import ModelConfig
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.cache.layer_cache import LayerCache
from engines.pytorch.model.attention import PagedAttention
from engines.pytorch.model.batch import Batch
from engines.pytorch.model.operations import Operations, PlainOperations
from engines.pytorch.model.rotary import RotaryEmbedding
from engines.pytorch.model.weights import LayerWeights, ModelWeights


class TextModel:
    """Qwen3VLTextModel of transformers and its language-model head: the same numbers, from a paged cache."""

    def __init__(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        operations: Operations | None = None,
        attention: PagedAttention | None = None,
    ) -> None:
        self._config = config
        self._weights = weights
        self._rotary = RotaryEmbedding(config, weights.embeddings.device)
        self._operations = operations or PlainOperations(config.rms_norm_eps, weights.embeddings.device)
        self._paged_attention = attention or PagedAttention()

    def __call__(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        """Writes the batch's keys and values into `cache`; returns logits [yielding, vocabulary] in float32."""
        width = self._config.hidden_size
        hidden = F.embedding(batch.token_ids, self._weights.embeddings)
        if len(batch.visual):
            hidden[batch.visual] = batch.rows[:, :width]
        rotation = self._rotary(batch.positions, hidden.dtype)
        add_norm, update = self._operations.add_norm, None
        for index, layer in enumerate(self._weights.layers):
            keys, values = cache.keys[index], cache.values[index]
            hidden, normed = add_norm(hidden, update, layer.input_norm)
            update = self._attention(layer, normed, rotation, keys, values, batch)
            hidden, normed = add_norm(hidden, update, layer.post_attention_norm)
            update = layer.mlp(normed, self._operations)
            if index < self._config.deepstack_levels and len(batch.visual):
                begin = width * (1 + index)
                hidden, update = hidden + update, None
                hidden.index_add_(0, batch.visual, batch.rows[:, begin : begin + width])
        if update is not None:
            update = update[batch.yielding]
        _, normed = add_norm(hidden[batch.yielding], update, self._weights.norm)
        return F.linear(normed, self._weights.head).float()

    def _attention(
        self,
        layer: LayerWeights,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        keys: LayerCache,
        values: LayerCache,
        batch: Batch,
    ) -> torch.Tensor:
        heads, kv_heads = self._config.num_attention_heads, self._config.num_key_value_heads
        qkv = layer.qkv(hidden).unflatten(1, (-1, self._config.head_dim))
        query_key, value = qkv.split((heads + kv_heads, kv_heads), dim=1)
        query_key = self._operations.norm_rotate(query_key, layer.query_key_norm, rotation)
        query, key = query_key.split((heads, kv_heads), dim=1)
        keys.write(batch.slots, key)
        values.write(batch.slots, value)
        attended = self._paged_attention(query, key, value, keys, values, batch.spans, batch.decoding)
        return layer.output(attended)
