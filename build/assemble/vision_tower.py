"""The vision tower of Qwen3-VL as one dense batch of temporal patches: what is exported and compiled.

The reference attends within one temporal patch only, and all temporal patches of a medium have the same grid. A chunk
is therefore a plain batch `[frames, patches, 1536]` with dense attention per frame: no mask, no ragged lengths. What
depends on the grid (interpolation of the learned positions, rotary angles) is an input, computed once per medium.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from build.assemble.checkpoint_config import (
    MERGED_PATCHES,
    PATCH_VALUES,
    PROCESSORS,
    VISION_PREFIX,
    WEIGHTS_INDEX,
    CheckpointConfig,
    VisionConfig,
    read_json,
    weight_files,
)

GELU_APPROXIMATIONS = {"gelu_pytorch_tanh": "tanh", "gelu": "none"}


PixelStatistics: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


def read_pixel_statistics(checkpoint: Path) -> PixelStatistics:
    """Mean and standard deviation of each channel, in units of the pixel values 0 to 255.

    The reference, too, fuses the rescaling of pixels into them. ValueError where images and videos have different ones.
    """
    pixels = {
        medium: _pixel_statistics(_read_processor(checkpoint, f"{medium}_processor", file_name))
        for medium, file_name in zip(("image", "video"), PROCESSORS, strict=True)
    }
    if len(set(pixels.values())) != 1:
        raise ValueError(f"images and videos are normalised differently, and one tower serves both: {pixels}")
    return pixels["image"]


def _read_processor(checkpoint: Path, section: str, file_name: str) -> dict[str, Any]:
    """A processor's configuration, from a file of its own as published or from the one that transformers 5 saves."""
    combined = checkpoint / "processor_config.json"
    if combined.exists() and section in (sections := read_json(combined)):
        return sections[section]
    return read_json(checkpoint / file_name)


def _pixel_statistics(processor: dict[str, Any]) -> PixelStatistics:
    scale = 1 / processor.get("rescale_factor", 1 / 255)
    mean, std = processor["image_mean"], processor["image_std"]
    return tuple(value * scale for value in mean), tuple(value * scale for value in std)


def read_vision_tensors(checkpoint: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tower's tensors as stored, by name without prefix, one at a time and in a fixed order."""
    for name in weight_files(checkpoint):
        if name == WEIGHTS_INDEX:
            continue
        with safe_open(checkpoint / name, framework="pt") as file:
            for key in sorted(file.keys()):
                if key.startswith(VISION_PREFIX):
                    yield key.removeprefix(VISION_PREFIX), file.get_tensor(key)


class VisionTower(nn.Module):
    """Submodules are named as in the checkpoint, so that its tensors load by name."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VisionConfig, pixels: PixelStatistics) -> None:
        super().__init__()
        self.config = config
        for name, channels in zip(("pixel_mean", "pixel_std"), pixels, strict=True):
            values = torch.tensor(channels).repeat_interleave(PATCH_VALUES // len(channels))
            self.register_buffer(name, values, persistent=False)
        # A convolution whose kernel is the whole patch is a matrix product.
        self.patch_embed = nn.ModuleDict({"proj": nn.Linear(PATCH_VALUES, config.hidden)})
        self.pos_embed = nn.Embedding(config.position_embeddings, config.hidden)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.merger = _Merger(config, norm_after_merge=False)
        self.deepstack_merger_list = nn.ModuleList(
            _Merger(config, norm_after_merge=True) for _ in config.deepstack_levels
        )

    @classmethod
    def load(cls, checkpoint: Path) -> "VisionTower":
        """The tower of a checkpoint folder, in float32 whatever is stored.

        ValueError for a tower that is not of the published kind, or tensors that do not fit.
        """
        config = CheckpointConfig.read(checkpoint).vision
        if config.activation not in GELU_APPROXIMATIONS:
            accepted = ", ".join(GELU_APPROXIMATIONS)
            raise ValueError(f"config.json: vision_config.hidden_act is {config.activation!r}; accepted are {accepted}")
        tower = cls(config, read_pixel_statistics(checkpoint))
        tensors = {name: tensor.to(torch.float32) for name, tensor in read_vision_tensors(checkpoint)}
        if not tensors:
            raise ValueError(f"{checkpoint}: no tensors named {VISION_PREFIX}* in its safetensors files")
        tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].flatten(1)
        try:
            tower.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise ValueError(f"{checkpoint}: its tensors do not fit its config.json: {error}") from error
        return tower.eval()

    def forward(
        self,
        patches: Tensor,
        position_indices: Tensor,
        position_weights: Tensor,
        rotary_cos: Tensor,
        rotary_sin: Tensor,
    ) -> Tensor:
        """Packed rows `[frames, patches/4, out_hidden * (1 + levels)]`: the merged feature, then each DeepStack level.

        patches: uint8 `[frames, patches, 1536]`; position_indices, position_weights: `[patches, 4]`;
        rotary_cos, rotary_sin: `[patches, head_dim]`.
        """
        pixels = (patches.to(torch.float32) - self.pixel_mean) / self.pixel_std
        positions = (self.pos_embed(position_indices) * position_weights.unsqueeze(-1)).sum(dim=1)
        hidden = self.patch_embed["proj"](pixels) + positions
        cos, sin = rotary_cos.unsqueeze(1), rotary_sin.unsqueeze(1)
        levels = []
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, cos, sin)
            if layer in self.config.deepstack_levels:
                levels.append(self.deepstack_merger_list[self.config.deepstack_levels.index(layer)](hidden))
        return torch.cat([self.merger(hidden), *levels], dim=-1)


class _Block(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.norm2 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.attn = _Attention(config)
        self.mlp = _Mlp(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.norm1(hidden), cos, sin)
        return hidden + self.mlp(self.norm2(hidden))


class _Attention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.heads, self.head_dim)).unbind(2)
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        return self.proj(_attend(query, key, value))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention within each frame: `[frames, patches, heads, head_dim]` three times to `[frames, patches, hidden]`."""
    if torch.onnx.is_in_onnx_export():
        # ONNX Runtime's own operator never holds the scores of all pairs of patches: for 3,072 patches of the published
        # sizes a third of the time of the decomposed operators, and no 600 MB of scores per frame.
        return torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            [tensor.flatten(2) for tensor in (query, key, value)],
            attrs={"num_heads": query.shape[2]},
            dtype=torch.float32,
            shape=query.flatten(2).shape,
            version=1,
        )
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin


class _Mlp(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.hidden, config.intermediate)
        self.linear_fc2 = nn.Linear(config.intermediate, config.hidden)
        self.approximation = GELU_APPROXIMATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear_fc2(functional.gelu(self.linear_fc1(hidden), approximate=self.approximation))


class _Merger(nn.Module):
    """Joins the four patches of a merge group, which are neighbours, into one row of the language model's width."""

    def __init__(self, config: VisionConfig, *, norm_after_merge: bool) -> None:
        super().__init__()
        merged = MERGED_PATCHES * config.hidden
        self.norm_after_merge = norm_after_merge
        self.norm = nn.LayerNorm(merged if norm_after_merge else config.hidden, eps=1e-6)
        self.linear_fc1 = nn.Linear(merged, merged)
        self.linear_fc2 = nn.Linear(merged, config.out_hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        rows = self.norm(_merge(hidden)) if self.norm_after_merge else _merge(self.norm(hidden))
        return self.linear_fc2(functional.gelu(self.linear_fc1(rows)))


def _merge(hidden: Tensor) -> Tensor:
    return hidden.unflatten(1, (-1, MERGED_PATCHES)).flatten(2)
