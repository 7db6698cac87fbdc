"""The paged KV cache's memory."""

from __future__ import annotations

from pathlib import Path

import torch

from engines.checkpoint import ModelConfig
from engines.pytorch.cache.layer_cache import FloatLayerCache, Int8LayerCache, LayerCache

# A CPU keeps at most so many when no number is set: one conversation of the longest published context.
MAX_CPU_TOKENS = 262_144
# Shares of the memory that is free at start; the rest is for activations, and on a CPU for the other stages.
CPU_SHARE = 0.5
GPU_SHARE = 0.85


class KVCache:
    """Keys and values of every layer, in blocks of `block_size` tokens: keys[layer], values[layer]."""

    def __init__(
        self,
        config: ModelConfig,
        blocks: int,
        block_size: int,
        device: torch.device,
        dtype: torch.dtype,
        kept: torch.dtype,
    ) -> None:
        """dtype: the computed precision; kept: the cache's own, another floating type or int8."""
        self.block_size = block_size
        # One for the values, and in 8 bits one for their scales: [2, layers, kv heads, slots, values or scales].
        self._memory = [
            torch.empty(
                (2, config.num_hidden_layers, config.num_key_value_heads, blocks * block_size, width),
                dtype=precision,
                device=device,
            )
            for width, precision in _kept_per_head(config, kept)
        ]
        self.keys, self.values = (
            [_states(layer, dtype) for layer in zip(*(memory[part] for memory in self._memory), strict=True)]
            for part in (0, 1)
        )

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copies the first `tokens` tokens of a block to another."""
        begin, to = source * self.block_size, target * self.block_size
        for memory in self._memory:
            memory[..., to : to + tokens, :] = memory[..., begin : begin + tokens, :]


def _kept_per_head(config: ModelConfig, kept: torch.dtype) -> list[tuple[int, torch.dtype]]:
    values = [(config.head_dim, kept)]
    return [*values, (1, torch.float16)] if kept == torch.int8 else values


def _states(memory: tuple[torch.Tensor, ...], dtype: torch.dtype) -> LayerCache:
    values, *scales = memory
    return Int8LayerCache(values, scales[0], dtype) if scales else FloatLayerCache(values, dtype)


def choose_cache_tokens(config: ModelConfig, device: torch.device, kept: torch.dtype) -> int:
    """How many tokens fit the memory that is free now."""
    bytes_per_head = sum(width * precision.itemsize for width, precision in _kept_per_head(config, kept))
    bytes_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * bytes_per_head
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * GPU_SHARE) // bytes_per_token
    return min(MAX_CPU_TOKENS, int(_free_bytes() * CPU_SHARE) // bytes_per_token)


def _free_bytes() -> int:
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) * 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except FileNotFoundError:  # no container, or version 1 of control groups
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))
