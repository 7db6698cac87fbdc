"""A model as the planner counts it: its shape and its tensors, from its own files or from a published shape."""

import json
import struct
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from build.assemble.checkpoint_config import MERGED_PATCHES, VISION_PREFIX, CheckpointConfig, VisionConfig


@dataclass(frozen=True)
class Model(CheckpointConfig):
    """A dense Qwen3-VL model: its shape, and every tensor of the checkpoint by its published name, with its shape."""

    name: str
    tensors: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        return sum(prod(shape) for shape in self.tensors.values())


@cache
def published_sizes() -> dict[str, dict[str, Any]]:
    """The published dense sizes: `{"4B": {"repository": ..., "text": ..., "vision": ...}}`."""
    return json.loads((Path(__file__).parent / "published.json").read_text())


def find_model(model: str) -> Model:
    """A model by checkpoint folder, published size (`4B`) or hub name (`Qwen/Qwen3-VL-4B-Instruct`).

    A folder's own config.json and safetensors headers win over everything; no weights are read.
    Raises ValueError for a name that is neither, or a checkpoint of another kind.
    """
    folder = Path(model)
    if folder.is_dir():
        return Model(**vars(CheckpointConfig.read(folder)), name=folder.name, tensors=safetensors_shapes(folder))
    for size, entry in published_sizes().items():
        if model in (size, entry["repository"], entry["repository"].replace("Instruct", "Thinking")):
            config = CheckpointConfig.parse(entry["text"], entry["vision"], entry["tie_word_embeddings"])
            return Model(**vars(config), name=size, tensors=_published_tensors(config))
    raise ValueError(
        f"model {model!r} is neither a folder nor a published dense size; known are "
        + ", ".join(f"{size} ({entry['repository']})" for size, entry in published_sizes().items())
    )


def safetensors_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors in the folder's safetensors files, from their headers alone.

    The format (safetensors' README): eight bytes of little-endian header length, then the header as JSON.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        shapes.update({name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"})
    if not shapes:
        raise ValueError(f"{folder} has no *.safetensors files")
    return shapes


def _published_tensors(config: CheckpointConfig) -> dict[str, tuple[int, ...]]:
    """The tensors that a published checkpoint of this shape has, by name, as transformers' Qwen3-VL defines them."""
    hidden, head_dim, intermediate = config.hidden, config.head_dim, config.intermediate
    queries, keys = config.heads * head_dim, config.kv_heads * head_dim
    tensors: dict[str, tuple[int, ...]] = {
        "model.language_model.embed_tokens.weight": (config.vocabulary, hidden),
        "model.language_model.norm.weight": (hidden,),
    }
    if not config.tied:
        tensors["lm_head.weight"] = (config.vocabulary, hidden)
    for layer in range(config.layers):
        prefix = f"model.language_model.layers.{layer}."
        tensors |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (queries, hidden),
            prefix + "self_attn.k_proj.weight": (keys, hidden),
            prefix + "self_attn.v_proj.weight": (keys, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, queries),
            prefix + "self_attn.q_norm.weight": (head_dim,),
            prefix + "self_attn.k_norm.weight": (head_dim,),
            prefix + "mlp.gate_proj.weight": (intermediate, hidden),
            prefix + "mlp.up_proj.weight": (intermediate, hidden),
            prefix + "mlp.down_proj.weight": (hidden, intermediate),
        }
    return tensors | _published_vision_tensors(config.vision)


def _published_vision_tensors(vision: VisionConfig) -> dict[str, tuple[int, ...]]:
    width, intermediate = vision.hidden, vision.intermediate
    merged = width * MERGED_PATCHES

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    tensors: dict[str, tuple[int, ...]] = {
        f"{VISION_PREFIX}patch_embed.proj.weight": (width, 3, 2, 16, 16),
        f"{VISION_PREFIX}patch_embed.proj.bias": (width,),
        f"{VISION_PREFIX}pos_embed.weight": (vision.position_embeddings, width),
    }
    for block in range(vision.depth):
        prefix = f"{VISION_PREFIX}blocks.{block}."
        tensors |= norm(prefix + "norm1", width) | norm(prefix + "norm2", width)
        tensors |= linear(prefix + "attn.qkv", 3 * width, width) | linear(prefix + "attn.proj", width, width)
        tensors |= linear(prefix + "mlp.linear_fc1", intermediate, width)
        tensors |= linear(prefix + "mlp.linear_fc2", width, intermediate)
    mergers = {f"{VISION_PREFIX}merger.": width}
    mergers |= {
        f"{VISION_PREFIX}deepstack_merger_list.{level}.": merged for level in range(len(vision.deepstack_levels))
    }
    for prefix, normalised in mergers.items():
        tensors |= norm(prefix + "norm", normalised)
        tensors |= linear(prefix + "linear_fc1", merged, merged)
        tensors |= linear(prefix + "linear_fc2", vision.out_hidden, merged)
    return tensors
