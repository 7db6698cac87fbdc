"""Make a small random Qwen3-VL checkpoint in the published file format, for tests and demonstrations.

    python -m build.assemble.checkpoint_factory FOLDER --seed 0 --shape small

The folder loads with transformers' AutoProcessor, AutoTokenizer and Qwen3VLForConditionalGeneration as a downloaded one
does.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from build.assemble.checkpoint_config import MERGED_PATCHES, PATCH_VALUES
from build.assemble.checkpoint_tokenizer import ADDED_TOKENS, write_tokenizer


@dataclass(frozen=True)
class Shape:
    """The sizes that differ between checkpoints; the defaults make the smallest checkpoint that has everything."""

    layers: int = 3
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 128
    tied: bool = True
    max_positions: int = 262144
    vision_depth: int = 4
    vision_hidden: int = 48
    vision_heads: int = 4
    vision_intermediate: int = 96
    position_embeddings: int = 256
    deepstack_levels: tuple[int, ...] = (0, 1, 2)
    dtype: Literal["float32", "bfloat16"] = "float32"
    shards: int = 1

    @property
    def mrope_section(self) -> tuple[int, int, int]:
        """Rotary frequencies for time, row and column, in the published proportion 24 : 20 : 20."""
        spatial = self.head_dim // 2 * 20 // 64
        return self.head_dim // 2 - 2 * spatial, spatial, spatial

    def __post_init__(self) -> None:
        requirements = {
            f"heads ({self.heads}) is a multiple of kv_heads ({self.kv_heads})": self.heads % self.kv_heads == 0,
            f"head_dim ({self.head_dim}) is even and at least 8": self.head_dim % 2 == 0 and self.head_dim >= 8,
            f"vision_hidden ({self.vision_hidden}) is a multiple of 4 * vision_heads ({self.vision_heads})": (
                self.vision_hidden % (4 * self.vision_heads) == 0
            ),
            f"position_embeddings ({self.position_embeddings}) is a square": (
                math.isqrt(self.position_embeddings) ** 2 == self.position_embeddings
            ),
            f"deepstack_levels {self.deepstack_levels} rise, lie below vision_depth ({self.vision_depth}) and are at"
            f" most one per layer ({self.layers})": (
                list(self.deepstack_levels) == sorted(set(self.deepstack_levels) & set(range(self.vision_depth)))
                and len(self.deepstack_levels) <= self.layers
            ),
        }
        for requirement, holds in requirements.items():
            if not holds:
                raise ValueError(f"shape refused; required is: {requirement}")


SHAPES: dict[str, Shape] = {
    "small": Shape(),
    "untied": Shape(
        tied=False,
        kv_heads=1,
        head_dim=16,
        hidden=80,
        vision_depth=3,
        vision_hidden=64,
        vision_heads=2,
        position_embeddings=2304,
        deepstack_levels=(1, 2),
    ),
    "deep": Shape(
        layers=6,
        heads=6,
        kv_heads=6,
        head_dim=64,
        vision_depth=7,
        vision_heads=3,
        position_embeddings=100,
        deepstack_levels=(1, 3, 4, 6),
    ),
    "shallow": Shape(layers=2, heads=8, kv_heads=4, tied=False, vision_depth=2, vision_heads=6, deepstack_levels=(1,)),
    "bfloat16": Shape(dtype="bfloat16", shards=3),
}


def make_checkpoint(folder: Path, *, seed: int = 0, shape: Shape = SHAPES["small"]) -> None:
    """Write a checkpoint of `shape` with random weights into `folder`; the same seed gives the same bytes.

    The weights are scaled so that greedy decoding has something to say: layers outweigh the embedding in the residual
    stream (else the last token is repeated for ever), attention is sharp enough for one image among many tokens to
    matter, and the likeliest token leads by far and is never a vision or padding token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, model_max_length=shape.max_positions)
    vocabulary = math.ceil(tokenizer.get_vocab_size() / 64) * 64
    for name, content in _configurations(shape, tokenizer, vocabulary).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    _write_weights(folder, _weights(shape, tokenizer, vocabulary, seed), shape)


def _configurations(shape: Shape, tokenizer: Tokenizer, vocabulary: int) -> dict[str, dict[str, Any]]:
    end_of_text, end_of_turn = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")
    pixels = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    return {
        "config.json": {
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "image_token_id": tokenizer.token_to_id("<|image_pad|>"),
            "model_type": "qwen3_vl",
            "text_config": {
                "attention_bias": False,
                "attention_dropout": 0.0,
                "bos_token_id": end_of_text,
                "dtype": shape.dtype,
                "eos_token_id": end_of_turn,
                "head_dim": shape.head_dim,
                "hidden_act": "silu",
                "hidden_size": shape.hidden,
                "initializer_range": 0.02,
                "intermediate_size": shape.intermediate,
                "max_position_embeddings": shape.max_positions,
                "model_type": "qwen3_vl_text",
                "num_attention_heads": shape.heads,
                "num_hidden_layers": shape.layers,
                "num_key_value_heads": shape.kv_heads,
                "rms_norm_eps": 1e-06,
                "rope_scaling": {
                    "mrope_interleaved": True,
                    "mrope_section": list(shape.mrope_section),
                    "rope_type": "default",
                },
                "rope_theta": 5000000,
                "tie_word_embeddings": shape.tied,
                "use_cache": True,
                "vocab_size": vocabulary,
            },
            "tie_word_embeddings": shape.tied,
            "transformers_version": "4.57.0",
            "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
            "vision_config": {
                "deepstack_visual_indexes": list(shape.deepstack_levels),
                "depth": shape.vision_depth,
                "hidden_act": "gelu_pytorch_tanh",
                "hidden_size": shape.vision_hidden,
                "in_channels": 3,
                "initializer_range": 0.02,
                "intermediate_size": shape.vision_intermediate,
                "model_type": "qwen3_vl",
                "num_heads": shape.vision_heads,
                "num_position_embeddings": shape.position_embeddings,
                "out_hidden_size": shape.hidden,
                "patch_size": 16,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
            "vision_end_token_id": tokenizer.token_to_id("<|vision_end|>"),
            "vision_start_token_id": tokenizer.token_to_id("<|vision_start|>"),
        },
        "generation_config.json": {
            "bos_token_id": end_of_text,
            "do_sample": True,
            "eos_token_id": [end_of_turn, end_of_text],
            "pad_token_id": end_of_text,
            "repetition_penalty": 1.0,
            "temperature": 0.7,
            "top_k": 20,
            "top_p": 0.8,
            "transformers_version": "4.57.0",
        },
        # Pixel limits far below the published ones (16777216 and 25165824 at most), so that tests are quick.
        "preprocessor_config.json": {
            "size": {"longest_edge": 64 * 32 * 32, "shortest_edge": 4 * 32 * 32},
            **pixels,
            "image_processor_type": "Qwen2VLImageProcessorFast",
        },
        "video_preprocessor_config.json": {
            "size": {"longest_edge": 512 * 32 * 32, "shortest_edge": 4 * 32 * 32},
            **pixels,
            "video_processor_type": "Qwen3VLVideoProcessor",
        },
    }


def _weights(shape: Shape, tokenizer: Tokenizer, vocabulary: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, std: float, mean: float = 0.0) -> torch.Tensor:
        return torch.randn(size, generator=generator) * std + mean

    def linear(
        name: str, inputs: int, outputs: int, *, bias: bool, gain: float = 1.0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        yield f"{name}.weight", normal(outputs, inputs, std=gain / math.sqrt(inputs))
        if bias:
            yield f"{name}.bias", normal(outputs, std=0.1)

    def layer_norm(name: str, size: int) -> Iterator[tuple[str, torch.Tensor]]:
        yield f"{name}.weight", normal(size, mean=1.0, std=0.1)
        yield f"{name}.bias", normal(size, std=0.1)

    def rms_norm(name: str, size: int, mean: float = 1.0) -> Iterator[tuple[str, torch.Tensor]]:
        yield f"{name}.weight", normal(size, mean=mean, std=0.1 * mean)

    def vocabulary_rows() -> torch.Tensor:
        # Lengths that vary much give the likeliest token a wide margin: rounding errors hardly ever decide. Short rows
        # are never the likeliest, and as inputs they are as distinct as others: the layers normalise.
        lengths = torch.exp(normal(vocabulary, 1, std=0.45))
        lengths[[tokenizer.token_to_id(name) for name in ADDED_TOKENS]] = 0.1
        lengths[tokenizer.get_vocab_size() :] = 0.1
        lengths[tokenizer.token_to_id("<|im_end|>")] = 1.0
        return normal(vocabulary, shape.hidden, std=0.3) * lengths

    def merger(name: str, norm_size: int) -> Iterator[tuple[str, torch.Tensor]]:
        merged = MERGED_PATCHES * shape.vision_hidden
        yield from layer_norm(f"{name}.norm", norm_size)
        yield from linear(f"{name}.linear_fc1", merged, merged, bias=True)
        yield from linear(f"{name}.linear_fc2", merged, shape.hidden, bias=True)

    def vision() -> Iterator[tuple[str, torch.Tensor]]:
        size = shape.vision_hidden
        yield "patch_embed.proj.weight", normal(size, 3, 2, 16, 16, std=3 / math.sqrt(PATCH_VALUES))
        yield "patch_embed.proj.bias", normal(size, std=0.1)
        yield "pos_embed.weight", normal(shape.position_embeddings, size, std=0.5)
        for layer in range(shape.vision_depth):
            block = f"blocks.{layer}"
            yield from layer_norm(f"{block}.norm1", size)
            yield from layer_norm(f"{block}.norm2", size)
            yield from linear(f"{block}.attn.qkv", size, 3 * size, bias=True)
            yield from linear(f"{block}.attn.proj", size, size, bias=True)
            yield from linear(f"{block}.mlp.linear_fc1", size, shape.vision_intermediate, bias=True)
            yield from linear(f"{block}.mlp.linear_fc2", shape.vision_intermediate, size, bias=True)
        yield from merger("merger", size)
        for level in range(len(shape.deepstack_levels)):
            yield from merger(f"deepstack_merger_list.{level}", MERGED_PATCHES * size)

    def text() -> Iterator[tuple[str, torch.Tensor]]:
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        yield "embed_tokens.weight", vocabulary_rows()
        for layer in range(shape.layers):
            block = f"layers.{layer}"
            yield from rms_norm(f"{block}.input_layernorm", shape.hidden)
            yield from rms_norm(f"{block}.post_attention_layernorm", shape.hidden)
            # Scores of standard deviation 1.4: attention that picks, instead of an average of the whole prompt.
            yield from rms_norm(f"{block}.self_attn.q_norm", shape.head_dim, mean=1.2)
            yield from rms_norm(f"{block}.self_attn.k_norm", shape.head_dim, mean=1.2)
            yield from linear(f"{block}.self_attn.q_proj", shape.hidden, queries, bias=False)
            yield from linear(f"{block}.self_attn.k_proj", shape.hidden, keys, bias=False)
            yield from linear(f"{block}.self_attn.v_proj", shape.hidden, keys, bias=False)
            yield from linear(f"{block}.self_attn.o_proj", queries, shape.hidden, bias=False, gain=2.0)
            yield from linear(f"{block}.mlp.gate_proj", shape.hidden, shape.intermediate, bias=False, gain=2.0)
            yield from linear(f"{block}.mlp.up_proj", shape.hidden, shape.intermediate, bias=False)
            yield from linear(f"{block}.mlp.down_proj", shape.intermediate, shape.hidden, bias=False, gain=2.0)
        # Half of the axes turned round: a tied model would otherwise find its last token likeliest, again and again.
        signs = torch.where(torch.rand(shape.hidden, generator=generator) < 0.5, -1.0, 1.0)
        yield "norm.weight", normal(shape.hidden, mean=1.0, std=0.1) * signs

    weights = {f"model.visual.{name}": tensor for name, tensor in vision()}
    weights |= {f"model.language_model.{name}": tensor for name, tensor in text()}
    if not shape.tied:
        weights["lm_head.weight"] = vocabulary_rows()
    return {name: tensor.to(getattr(torch, shape.dtype)) for name, tensor in weights.items()}


def _write_weights(folder: Path, weights: dict[str, torch.Tensor], shape: Shape) -> None:
    metadata = {"format": "pt"}
    if shape.shards == 1:
        save_file(weights, folder / "model.safetensors", metadata)
        return
    names = list(weights)
    weight_map: dict[str, str] = {}
    for shard in range(shape.shards):
        file = f"model-{shard + 1:05d}-of-{shape.shards:05d}.safetensors"
        part = names[shard * len(names) // shape.shards : (shard + 1) * len(names) // shape.shards]
        save_file({name: weights[name] for name in part}, folder / file, metadata)
        weight_map |= dict.fromkeys(part, file)
    total_size = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make a small random Qwen3-VL checkpoint in the published file format."
    )
    parser.add_argument("folder", type=Path, help="where the checkpoint is written; made if it does not exist")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), default="small", help="head counts, layers, … (default: small)"
    )
    arguments = parser.parse_args()
    make_checkpoint(arguments.folder, seed=arguments.seed, shape=SHAPES[arguments.shape])
    print(f"{arguments.folder}: a random Qwen3-VL checkpoint, shape {arguments.shape}, seed {arguments.seed}")


if __name__ == "__main__":
    main()
