"""A Qwen3-VL checkpoint as its files describe it: `config.json`, and which files hold the weights.

It needs the standard library only: a server reads manifests where nothing is built.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A patch is 16 x 16 pixels of 2 frames in 3 channels, and 2 x 2 patches are merged into one token.
PATCH_SIDE = 16
PATCH_VALUES = 3 * 2 * PATCH_SIDE * PATCH_SIDE
MERGED_PATCHES = 4
VISION_PREFIX = "model.visual."
# The images' and the videos' configuration.
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
SINGLE_WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"

_FIXED = {"patch_size": PATCH_SIDE, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}


class CheckpointError(ValueError):
    """The checkpoint is not there, not complete or not of a kind that is served; the message says which."""


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower's shape."""

    depth: int
    hidden: int
    heads: int
    intermediate: int
    activation: str
    out_hidden: int
    position_embeddings: int
    deepstack_levels: tuple[int, ...]

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def feature_width(self) -> int:
        """Values of one packed row: the merged feature and every DeepStack level."""
        return self.out_hidden * (1 + len(self.deepstack_levels))


@dataclass(frozen=True)
class CheckpointConfig:
    """The shape of a dense Qwen3-VL model: the text decoder's own fields, and the vision tower's."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    max_positions: int
    tied: bool
    vision: VisionConfig

    @classmethod
    def read(cls, checkpoint: Path) -> CheckpointConfig:
        """Reads the folder's `config.json`. Raises CheckpointError for a model of another kind."""
        config = read_json(checkpoint / "config.json")
        model_type = config.get("model_type")
        if model_type == "qwen3_vl_moe":
            raise CheckpointError(
                f"{checkpoint} is a mixture of experts (model_type qwen3_vl_moe), which is not served;"
                " the dense Qwen3-VL models (2B, 4B, 8B, 32B; model_type qwen3_vl) are accepted"
            )
        if model_type != "qwen3_vl":
            raise CheckpointError(f"{checkpoint}: config.json has model_type {model_type!r}; qwen3_vl is accepted")
        text = config["text_config"]
        # transformers flips the default of the text configuration's own value: the top level is the one that counts.
        tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
        return cls.parse(text, config["vision_config"], tied)

    @classmethod
    def parse(cls, text: dict[str, Any], vision: dict[str, Any], tied: bool) -> CheckpointConfig:
        """The shape in two sections of a `config.json`; keys that all published sizes share may be absent.

        Raises CheckpointError for a vision tower of another kind.
        """
        for key, expected in _FIXED.items():
            if vision.get(key, expected) != expected:
                raise CheckpointError(f"config.json: vision_config.{key} is {vision[key]}; {expected} is accepted")
        return cls(
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            intermediate=text["intermediate_size"],
            vocabulary=text["vocab_size"],
            max_positions=text["max_position_embeddings"],
            tied=tied,
            vision=VisionConfig(
                depth=vision["depth"],
                hidden=vision["hidden_size"],
                heads=vision["num_heads"],
                intermediate=vision["intermediate_size"],
                activation=vision.get("hidden_act", "gelu_pytorch_tanh"),
                out_hidden=vision.get("out_hidden_size", text["hidden_size"]),
                position_embeddings=vision["num_position_embeddings"],
                deepstack_levels=tuple(vision["deepstack_visual_indexes"]),
            ),
        )


def weight_files(checkpoint: Path) -> list[str]:
    """The names of the safetensors files, and of their index if there is one."""
    if (checkpoint / WEIGHTS_INDEX).is_file():
        return [WEIGHTS_INDEX, *sorted(set(read_json(checkpoint / WEIGHTS_INDEX)["weight_map"].values()))]
    return [SINGLE_WEIGHTS]


def require(checkpoint: Path, *names: str) -> None:
    """Raises CheckpointError for the first of these files that is missing."""
    for name in names:
        if not (checkpoint / name).is_file():
            raise CheckpointError(f"{checkpoint}: {name} is missing")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a checkpoint. Raises CheckpointError where there is none."""
    require(path.parent, path.name)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
