"""Writes a trained model as a checkpoint in the published file format, and reads it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from build.assemble.checkpoint_factory import Shape, make_checkpoint
from build.assemble.checkpoint_tokenizer import ADDED_TOKENS
from build.demo_checkpoint.model import LanguageModel, ModelShape, VisionTower
from build.demo_checkpoint.vocabulary import build_tokenizer

# Enough for hours of video in 96×64 pixels, and no more than the training's times reach.
MAX_POSITIONS = 65_536
PATCHES = "model.visual.patch_embed.proj.weight"
"""Published as the weight of a convolution, kept here as that of a matrix product."""


def export(folder: Path, tower: VisionTower, model: LanguageModel) -> None:
    """Writes config, tokenizer, chat template, processor configurations and bfloat16 weights into `folder`."""
    shape = tower.shape
    make_checkpoint(folder, shape=_factory_shape(shape))
    tokenizer = build_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    ids = {name: tokenizer.token_to_id(name) for name in ADDED_TOKENS}
    with _edit(folder / "tokenizer_config.json") as config:
        entries = config["added_tokens_decoder"].values()
        config["added_tokens_decoder"] = {str(ids[entry["content"]]): entry for entry in entries}
    with _edit(folder / "config.json") as config:
        for kind in ("image", "video"):
            config[f"{kind}_token_id"] = ids[f"<|{kind}_pad|>"]
        for kind in ("start", "end"):
            config[f"vision_{kind}_token_id"] = ids[f"<|vision_{kind}|>"]
        config["text_config"] |= {
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "rope_theta": shape.rope_theta,
            "vocab_size": shape.vocabulary,
        }
        config["text_config"]["rope_scaling"]["mrope_section"] = list(shape.mrope_section)
    with _edit(folder / "generation_config.json") as config:
        config.clear()
        config |= {
            "bos_token_id": ids["<|endoftext|>"],
            "do_sample": False,
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
        }
    with _edit(folder / "video_preprocessor_config.json") as config:
        # As published: an hour keeps its 96×64 pixels, and 768 frames.
        config["size"]["longest_edge"] = 25_165_824
    save_file(published_weights(tower, model), folder / "model.safetensors", {"format": "pt"})


def published_weights(tower: VisionTower, model: LanguageModel) -> dict[str, torch.Tensor]:
    """The parameters under their published names, bfloat16."""
    weights = {f"model.visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    weights[PATCHES] = weights[PATCHES].view(-1, 3, 2, 16, 16)
    for name, tensor in model.state_dict().items():
        weights[name if name.startswith("lm_head") else f"model.language_model.{name}"] = tensor
    return {name: tensor.detach().cpu().to(torch.bfloat16).contiguous() for name, tensor in weights.items()}


def load_exported(folder: Path, shape: ModelShape) -> tuple[VisionTower, LanguageModel]:
    """The float32 models whose parameters `export` wrote into `folder`.

    Raises:
        RuntimeError: They are not of that shape.
    """
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    tower, model = VisionTower(shape), LanguageModel(shape)
    weights[PATCHES] = weights[PATCHES].flatten(1)
    head = {name: weights.pop(name) for name in [*weights] if name.startswith("lm_head")}
    for part, prefix, others in ((tower, "model.visual.", {}), (model, "model.language_model.", head)):
        mine = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        part.load_state_dict(mine | others)
    return tower, model


def _factory_shape(shape: ModelShape) -> Shape:
    return Shape(
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate=shape.intermediate,
        tied=False,
        max_positions=MAX_POSITIONS,
        vision_depth=shape.vision_depth,
        vision_hidden=shape.vision_hidden,
        vision_heads=shape.vision_heads,
        vision_intermediate=shape.vision_intermediate,
        position_embeddings=shape.position_embeddings,
        deepstack_levels=shape.deepstack_levels,
        dtype="bfloat16",
    )


class _edit:  # noqa: N801
    """`with _edit(path) as content`: a JSON file, written back when the block ends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> dict[str, Any]:
        self.content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return self.content

    def __exit__(self, *_: object) -> None:
        self.path.write_text(json.dumps(self.content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
