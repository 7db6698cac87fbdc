"""The paged KV cache's memory."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.checkpoint import ModelConfig

# What a CPU keeps at most when no number is set: one conversation of the longest published context.
MAX_CPU_TOKENS = 262_144
# Of the memory that is free at start; the rest is for activations, and on a CPU for the other stages.
CPU_SHARE = 0.5
GPU_SHARE = 0.85


class KVCache:
    """Keys and values of every layer, in blocks of `block_size` tokens.

    keys[layer], values[layer]: [blocks, block_size, kv heads, head dim], the layout of
    `torch.nn.attention.varlen`'s block tables.
    """

    def __init__(
        self, config: ModelConfig, blocks: int, block_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (2, config.num_hidden_layers, blocks, block_size, config.num_key_value_heads, config.head_dim)
        memory = torch.empty(shape, dtype=dtype, device=device)
        self.block_size = block_size
        self._memory = memory
        self.keys = memory[0].unbind(0)
        self.values = memory[1].unbind(0)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copies the first `tokens` tokens of a block to another."""
        self._memory[:, :, target, :tokens] = self._memory[:, :, source, :tokens]


def choose_cache_tokens(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> int:
    """How many tokens fit the memory that is free now."""
    values_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    bytes_per_token = values_per_token * dtype.itemsize
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
