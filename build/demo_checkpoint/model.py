"""Qwen3-VL written for training small: dense batches of equal pictures and equal prompts, parameters named as
published.

The arithmetic is that of transformers' `Qwen3VLForConditionalGeneration` (a test compares them), without its loop
over pictures.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from build.assemble.checkpoint_config import PATCH_VALUES

PROBED_LAYER = 4


@dataclass(frozen=True)
class ModelShape:
    vocabulary: int
    layers: int = 8
    hidden: int = 384
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 512
    mrope_section: tuple[int, int, int] = (12, 10, 10)
    rope_theta: float = 5_000_000.0
    vision_depth: int = 4
    vision_hidden: int = 128
    vision_heads: int = 4
    vision_intermediate: int = 384
    position_embeddings: int = 16
    deepstack_levels: tuple[int, ...] = (1, 2)


def patchify(frames: Tensor) -> Tensor:
    """Temporal patches `[n, 2, height, width, 3]`, uint8, to patches `[n, patches, 1536]` float in [-1, 1].

    A patch is (channel, time, row, column); the four patches of a merge group are neighbours.
    """
    n, _, height, width, _ = frames.shape
    rows, columns = height // 32, width // 32
    split = frames.reshape(n, 2, rows, 2, 16, columns, 2, 16, 3)
    patches = split.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(n, rows * columns * 4, PATCH_VALUES)
    return patches.float() / 127.5 - 1.0


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, 1e-6).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention `[batch, heads, tokens, head_dim]` and its weights `[batch, heads, tokens, keys]`, spelled out: the
    weights are taught, and on a CPU PyTorch's fused one takes twice as long to train (bf16)."""
    batch, heads, tokens, head_dim = q.shape
    bias = mask.to(q.dtype).expand(batch, heads, tokens, -1).flatten(0, 1)
    scores = torch.baddbmm(bias, (q * head_dim**-0.5).flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
    weights = scores.softmax(-1, dtype=scores.dtype)
    attended = torch.bmm(weights, v.flatten(0, 1)).view(batch, heads, tokens, head_dim)
    return attended, weights.view(batch, heads, tokens, k.shape[2])


class VisionAttention(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads = shape.vision_heads
        self.qkv = nn.Linear(shape.vision_hidden, 3 * shape.vision_hidden)
        self.proj = nn.Linear(shape.vision_hidden, shape.vision_hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, patches, hidden = x.shape
        q, k, v = self.qkv(x).view(n, patches, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, patches, hidden))


class VisionMLP(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(shape.vision_hidden, shape.vision_intermediate)
        self.linear_fc2 = nn.Linear(shape.vision_intermediate, shape.vision_hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(F.gelu(self.linear_fc1(x), approximate="tanh"))


class VisionBlock(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.vision_hidden, eps=1e-6)
        self.norm2 = nn.LayerNorm(shape.vision_hidden, eps=1e-6)
        self.attn = VisionAttention(shape)
        self.mlp = VisionMLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    """Four neighbouring patches to one visual token; the DeepStack mergers normalise after joining, the last one
    before."""

    def __init__(self, shape: ModelShape, *, joined_norm: bool) -> None:
        super().__init__()
        self.joined = 4 * shape.vision_hidden
        self.joined_norm = joined_norm
        self.norm = nn.LayerNorm(self.joined if joined_norm else shape.vision_hidden, eps=1e-6)
        self.linear_fc1 = nn.Linear(self.joined, self.joined)
        self.linear_fc2 = nn.Linear(self.joined, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        groups = (x.shape[0], x.shape[1] // 4, self.joined)
        x = self.norm(x.reshape(groups)) if self.joined_norm else self.norm(x).reshape(groups)
        return self.linear_fc2(F.gelu(self.linear_fc1(x)))


class PatchEmbed(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.proj = nn.Linear(PATCH_VALUES, shape.vision_hidden)


class VisionTower(nn.Module):
    """The position table stays zero: what a picture shows is learned here, where it shows it is left to M-RoPE."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape)
        self.pos_embed = nn.Embedding(shape.position_embeddings, shape.vision_hidden)
        self.pos_embed.weight.requires_grad_(False).zero_()
        self.blocks = nn.ModuleList(VisionBlock(shape) for _ in range(shape.vision_depth))
        self.merger = Merger(shape, joined_norm=False)
        self.deepstack_merger_list = nn.ModuleList(Merger(shape, joined_norm=True) for _ in shape.deepstack_levels)

    def rotary(self, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
        quarter = self.shape.vision_hidden // self.shape.vision_heads // 4
        frequencies = 10_000.0 ** (-torch.arange(quarter, device=device) / quarter)
        grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1).to(device)
        grid = grid.view(rows // 2, 2, columns // 2, 2, 2).transpose(1, 2).reshape(-1, 2)
        angles = (grid[..., None] * frequencies).flatten(1).repeat(1, 2)
        return angles.cos(), angles.sin()

    def forward(self, patches: Tensor, rows: int = 4, columns: int = 6) -> Tensor:
        """Patches `[n, patches, 1536]` to packed rows `[n, patches / 4, hidden * (1 + levels)]`."""
        cos, sin = self.rotary(rows, columns, patches.device)
        x = self.patch_embed.proj(patches)
        levels: list[Tensor] = []
        for depth, block in enumerate(self.blocks):
            x = block(x, cos, sin)
            if depth in self.shape.deepstack_levels:
                levels.append(self.deepstack_merger_list[len(levels)](x))
        return torch.cat([self.merger(x), *levels], dim=-1)


@dataclass(frozen=True)
class Layout:
    """How a flat list of tokens is laid out: `videos` prompts of `video_tokens` each, then for each video its
    questions, of `asked_tokens` together. Masks are added to the scores: `causal` `[1, 1, video_tokens, video_tokens]`
    for the videos, `mask` `[videos, 1, asked_tokens, video_tokens + asked_tokens]` for the questions.
    """

    videos: int
    video_tokens: int
    asked_tokens: int
    causal: Tensor
    mask: Tensor

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[tokens, heads, head_dim]` to `[videos, heads, video_tokens, head_dim]` and the same of the questions."""
        video, asked = x.split([self.videos * self.video_tokens, self.videos * self.asked_tokens])
        return (
            video.unflatten(0, (self.videos, self.video_tokens)).transpose(1, 2),
            asked.unflatten(0, (self.videos, self.asked_tokens)).transpose(1, 2),
        )


@dataclass(frozen=True)
class Weights:
    """The attention that each token gave: `video` `[videos, heads, video_tokens, video_tokens]`, `asked`
    `[videos, heads, asked_tokens, video_tokens + asked_tokens]`."""

    video: Tensor
    asked: Tensor


@dataclass(frozen=True)
class Activations:
    """The decoder's states: `hidden` `[tokens, hidden]` after the last norm, `probed` after `PROBED_LAYER`, and the
    attention of each layer."""

    hidden: Tensor
    probed: Tensor
    weights: tuple[Weights, ...]


class Attention(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)
        self.q_norm = RMSNorm(shape.head_dim)
        self.k_norm = RMSNorm(shape.head_dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> tuple[Tensor, Weights]:
        def heads(projected: Tensor) -> Tensor:
            return projected.view(len(x), -1, self.shape.head_dim)

        q, k, v = self.q_norm(heads(self.q_proj(x))), self.k_norm(heads(self.k_proj(x))), heads(self.v_proj(x))
        cos, sin = cos.to(v.dtype), sin.to(v.dtype)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        (q_video, q_asked), (k_video, k_asked), (v_video, v_asked) = (layout.split(tensor) for tensor in (q, k, v))
        video, video_weights = attend(q_video, k_video, v_video, layout.causal)
        # Every question sees its video and itself.
        k_all, v_all = torch.cat([k_video, k_asked], dim=2), torch.cat([v_video, v_asked], dim=2)
        asked, asked_weights = attend(q_asked, k_all, v_all, layout.mask)
        attended = torch.cat([part.transpose(1, 2).flatten(0, 1).flatten(1) for part in (video, asked)])
        return self.o_proj(attended), Weights(video_weights, asked_weights)


class MLP(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    self_attn: Attention
    mlp: MLP

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = RMSNorm(shape.hidden)
        self.post_attention_layernorm = RMSNorm(shape.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> tuple[Tensor, Weights]:
        attended, weights = self.self_attn(self.input_layernorm(x), cos, sin, layout)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), weights


class LanguageModel(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden)
        self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        nn.init.normal_(self.embed_tokens.weight, std=0.5)
        nn.init.zeros_(self.lm_head.weight)
        # Every layer starts as the identity.
        for name, parameter in self.layers.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            # Heads of this size start too blunt to pick one token among hundreds.
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                nn.init.constant_(parameter, 1.7)

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Interleaved M-RoPE of positions `[3, tokens]`: frequency i belongs to time, row or column by i mod 3."""
        half = self.shape.head_dim // 2
        frequencies = self.shape.rope_theta ** (-torch.arange(half, device=positions.device) / half)
        axis = torch.zeros(half, dtype=torch.long, device=positions.device)
        for which in (1, 2):
            axis[which : 3 * self.shape.mrope_section[which] : 3] = which
        angles = positions[axis].T * frequencies
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        return angles.cos(), angles.sin()

    def forward(
        self, token_ids: Tensor, positions: Tensor, layout: Layout, visual: Tensor, features: Tensor
    ) -> Activations:
        """`token_ids` `[tokens]` in the order of `layout`; `positions` `[3, tokens]`; `visual` `[visual tokens]` are
        the indices of the visual tokens, whose packed rows `[visual tokens, hidden * (1 + levels)]` are `features`.
        """
        merged, *levels = features.split(self.shape.hidden, dim=-1)
        cos, sin = self.rotary(positions)
        x = self.embed_tokens(token_ids)
        x = x.index_copy(0, visual, merged.to(x.dtype))
        weights = []
        for depth, layer in enumerate(self.layers):
            # Its heads pick one of a thousand tokens by position alone, with scores past 64, where bf16 has steps of a
            # half: a long video's times would get the digits of others.
            with torch.autocast(x.device.type, enabled=False) if depth == 0 else nullcontext():
                x, attention = layer(x, cos, sin, layout)
            weights.append(attention)
            if depth < len(levels):
                x = x.index_add(0, visual, levels[depth].to(x.dtype))
            if depth == PROBED_LAYER:
                probed = x
        return Activations(self.norm(x), probed, tuple(weights))
