"""What a plan must know of a checkpoint: its shape and its tensors, from its own files or from a published shape."""

import json
import struct
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

PATCH_VALUES = 3 * 2 * 16 * 16
MERGED_PATCHES = 4


@dataclass(frozen=True)
class Model:
    """A dense Qwen3-VL model.

    hidden ... max_positions: the text decoder's configuration. vision_*: the vision tower's.
    levels: DeepStack levels. tensors: every tensor of the checkpoint by its published name, with its shape.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    max_positions: int
    tied: bool
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_intermediate: int
    vision_positions: int
    levels: int
    tensors: dict[str, tuple[int, ...]]

    @property
    def feature_width(self) -> int:
        """Values of one packed row: the merged feature and every DeepStack level."""
        return self.hidden * (1 + self.levels)

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
    if Path(model).is_dir():
        return _from_checkpoint(Path(model))
    for size, entry in published_sizes().items():
        if model in (size, entry["repository"], entry["repository"].replace("Instruct", "Thinking")):
            return _from_published(size, entry)
    raise ValueError(
        f"model {model!r} is neither a folder nor a published dense size; known are "
        + ", ".join(f"{size} ({entry['repository']})" for size, entry in published_sizes().items())
    )


def _from_checkpoint(folder: Path) -> Model:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json: a folder with a Qwen3-VL checkpoint is accepted")
    config = json.loads(path.read_text())
    if config.get("model_type") != "qwen3_vl":
        raise ValueError(f"{folder} has model_type {config.get('model_type')!r}; only the dense qwen3_vl is accepted")
    text, vision = config["text_config"], config["vision_config"]
    # transformers flips the default of the text configuration's own value: the top level is the one that counts.
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    return _model(folder.name, text, vision, tied, safetensors_shapes(folder))


def _from_published(size: str, entry: dict[str, Any]) -> Model:
    tensors = _published_tensors(entry["text"], entry["vision"], entry["tie_word_embeddings"])
    return _model(size, entry["text"], entry["vision"], entry["tie_word_embeddings"], tensors)


def _model(
    name: str, text: dict[str, Any], vision: dict[str, Any], tied: bool, tensors: dict[str, tuple[int, ...]]
) -> Model:
    return Model(
        name=name,
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
        intermediate=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        max_positions=text["max_position_embeddings"],
        tied=tied,
        vision_hidden=vision["hidden_size"],
        vision_depth=vision["depth"],
        vision_heads=vision["num_heads"],
        vision_intermediate=vision["intermediate_size"],
        vision_positions=vision["num_position_embeddings"],
        levels=len(vision["deepstack_visual_indexes"]),
        tensors=tensors,
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


def _published_tensors(text: dict[str, Any], vision: dict[str, Any], tied: bool) -> dict[str, tuple[int, ...]]:
    """The tensors that a published checkpoint of this shape has, by name, as transformers' Qwen3-VL defines them."""
    hidden, head_dim, intermediate = text["hidden_size"], text["head_dim"], text["intermediate_size"]
    queries, keys = text["num_attention_heads"] * head_dim, text["num_key_value_heads"] * head_dim
    tensors: dict[str, tuple[int, ...]] = {
        "model.language_model.embed_tokens.weight": (text["vocab_size"], hidden),
        "model.language_model.norm.weight": (hidden,),
    }
    if not tied:
        tensors["lm_head.weight"] = (text["vocab_size"], hidden)
    for layer in range(text["num_hidden_layers"]):
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
    return tensors | _published_vision_tensors(vision, hidden)


def _published_vision_tensors(vision: dict[str, Any], out_hidden: int) -> dict[str, tuple[int, ...]]:
    width, intermediate = vision["hidden_size"], vision["intermediate_size"]
    merged = width * MERGED_PATCHES

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    tensors: dict[str, tuple[int, ...]] = {
        "model.visual.patch_embed.proj.weight": (width, 3, 2, 16, 16),
        "model.visual.patch_embed.proj.bias": (width,),
        "model.visual.pos_embed.weight": (vision["num_position_embeddings"], width),
    }
    for block in range(vision["depth"]):
        prefix = f"model.visual.blocks.{block}."
        tensors |= norm(prefix + "norm1", width) | norm(prefix + "norm2", width)
        tensors |= linear(prefix + "attn.qkv", 3 * width, width) | linear(prefix + "attn.proj", width, width)
        tensors |= linear(prefix + "mlp.linear_fc1", intermediate, width)
        tensors |= linear(prefix + "mlp.linear_fc2", width, intermediate)
    mergers = {"model.visual.merger.": width}
    mergers |= {
        f"model.visual.deepstack_merger_list.{level}.": merged
        for level in range(len(vision["deepstack_visual_indexes"]))
    }
    for prefix, normalised in mergers.items():
        tensors |= norm(prefix + "norm", normalised)
        tensors |= linear(prefix + "linear_fc1", merged, merged) | linear(prefix + "linear_fc2", out_hidden, merged)
    return tensors
