"""A checkpoint's config.json and generation_config.json, as far as an engine needs them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.sampling_parameters import SamplingParameters

MODEL_TYPES = ("qwen3_vl",)
"""The models that the engines compute."""


@dataclass(frozen=True)
class Yarn:
    """How rotary positions are stretched beyond the trained length, by the paper's names (arXiv 2309.00071)."""

    factor: float
    original_positions: int
    """The trained length, in positions."""
    attention_factor: float
    """On cosines and sines."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    """The ramp between stretched and unstretched frequencies begins and ends at whole ones."""

    @classmethod
    def by_factor(cls, factor: float, original_positions: int) -> Yarn:
        """Takes everything else from the paper."""
        return cls(factor, original_positions, _mscale(factor))


@dataclass(frozen=True)
class ModelConfig:
    """Qwen3-VL's text decoder, by the names of the published config.json."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    max_position_embeddings: int
    tie_word_embeddings: bool
    dtype: str
    deepstack_levels: int
    """Rows that come with a visual token beside its merged feature."""
    visual_token_ids: tuple[int, int]
    """The placeholders that packed rows replace."""
    yarn: Yarn | None = None
    """None where positions are not stretched."""
    quantisation: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint's `quantization_config`, empty where its weights are dense."""

    @property
    def row_width(self) -> int:
        """Width of a packed row: the merged feature and one feature per DeepStack level."""
        return self.hidden_size * (1 + self.deepstack_levels)


def read_model_config(folder: Path) -> ModelConfig:
    """Reads `folder`/config.json. Raises ValueError for a model or a variant that the engine does not compute."""
    config = _read_json(folder / "config.json")
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"{folder}/config.json has model_type {model_type!r}; {' or '.join(MODEL_TYPES)} is accepted")
    text = config["text_config"]
    for key, accepted in (("hidden_act", "silu"), ("attention_bias", False)):
        if text.get(key, accepted) != accepted:
            raise ValueError(f"text_config.{key} is {text[key]!r}; {accepted!r} is accepted")
    # Written as rope_scaling beside rope_theta by published checkpoints, as rope_parameters by newer transformers.
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope", "yarn"):
        raise ValueError(f"text_config has the rope type {rope_type!r}; 'default' and 'yarn' are accepted")
    heads = text["num_attention_heads"]
    return ModelConfig(
        model_type=model_type,
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_hidden_layers=text["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        rms_norm_eps=text["rms_norm_eps"],
        rope_theta=float(rope.get("rope_theta", text.get("rope_theta", 500_000))),
        mrope_section=tuple(rope.get("mrope_section", (24, 20, 20))),
        max_position_embeddings=text["max_position_embeddings"],
        tie_word_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        dtype=_dtype_name(config, text),
        deepstack_levels=len(config["vision_config"]["deepstack_visual_indexes"]),
        visual_token_ids=(config["image_token_id"], config["video_token_id"]),
        yarn=_read_yarn(rope, text["max_position_embeddings"]) if rope_type == "yarn" else None,
        quantisation=config.get("quantization_config") or text.get("quantization_config") or {},
    )


@dataclass(frozen=True)
class GenerationConfig:
    """The checkpoint's own way to generate: which tokens end an answer, and the parameters of a request without any."""

    eos_token_ids: tuple[int, ...]
    defaults: SamplingParameters


def read_generation_config(folder: Path, default_max_tokens: int) -> GenerationConfig:
    """Reads `folder`/generation_config.json; a checkpoint without sampling there (do_sample) is greedy by default."""
    config = _read_json(folder / "generation_config.json")
    eos = config.get("eos_token_id", [])
    sampled = config.get("do_sample", False)
    given = {
        key: config[key]
        for key in ("temperature", "top_p", "top_k", "min_p")
        if sampled and config.get(key) is not None
    }
    if sampled:
        given.setdefault("temperature", 1.0)
    defaults = SamplingParameters(
        max_tokens=default_max_tokens, repetition_penalty=config.get("repetition_penalty") or 1.0, **given
    )
    return GenerationConfig(tuple(eos) if isinstance(eos, list) else (eos,), defaults)


def _read_yarn(rope: Mapping[str, Any], max_positions: int) -> Yarn:
    original = rope.get("original_max_position_embeddings") or max_positions
    factor = rope.get("factor") or max_positions / original
    attention_factor = rope.get("attention_factor")
    if attention_factor is None:
        attention_factor = _mscale(factor)
        if rope.get("mscale") and rope.get("mscale_all_dim"):
            attention_factor = _mscale(factor, rope["mscale"]) / _mscale(factor, rope["mscale_all_dim"])
    return Yarn(
        factor=factor,
        original_positions=original,
        attention_factor=attention_factor,
        beta_fast=rope.get("beta_fast") or Yarn.beta_fast,
        beta_slow=rope.get("beta_slow") or Yarn.beta_slow,
        truncate=rope.get("truncate", Yarn.truncate),
    )


def _mscale(factor: float, mscale: float = 1.0) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _dtype_name(config: dict[str, Any], text: dict[str, Any]) -> str:
    for section, key in ((text, "dtype"), (text, "torch_dtype"), (config, "dtype"), (config, "torch_dtype")):
        if section.get(key):
            return str(section[key])
    return "float32"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; a folder with a Qwen3-VL checkpoint is accepted") from None
    return dict(value)
