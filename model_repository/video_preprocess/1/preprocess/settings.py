"""The settings in the checkpoint's own files: pixels, frames, positions and tokens."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Patching:
    """How pixels become patches: squares of `patch_pixels`, `frames` deep, merged `merge` x `merge` into a token."""

    patch_pixels: int
    merge: int
    frames: int

    @property
    def token_pixels(self) -> int:
        """The side of the square of pixels that one visual token stands for."""
        return self.patch_pixels * self.merge


@dataclass(frozen=True)
class ImageSettings:
    min_pixels: int
    max_pixels: int


@dataclass(frozen=True)
class VideoSettings:
    """`min_pixels` and `max_pixels` count all frames of a video together."""

    min_pixels: int
    max_pixels: int
    fps: float
    min_frames: int
    max_frames: int
    max_tokens_per_frame: int


@dataclass(frozen=True)
class VisionTower:
    """The part of the vision tower that its positions depend on."""

    table_side: int
    head_dim: int
    rope_theta: float


@dataclass(frozen=True)
class TokenIds:
    image_pad: int
    video_pad: int
    vision_start: int
    vision_end: int


@dataclass(frozen=True)
class Settings:
    patching: Patching
    image: ImageSettings
    video: VideoSettings
    vision: VisionTower
    token_ids: TokenIds
    context_length: int
    """Tokens of the prompt and the answer together."""


def load_settings(checkpoint: Path, *, context_length: int | None = None) -> Settings:
    """Reads `config.json` and the processor configurations, laid out as published or as transformers 5 saves them.

    What a file leaves out has the default of transformers' `Qwen2VLImageProcessor` and `Qwen3VLVideoProcessor`.
    `context_length` replaces the checkpoint's `max_position_embeddings` if given.
    """
    config = _read_json(checkpoint / "config.json")
    vision = config["vision_config"]
    image = _processor_config(checkpoint, "image_processor", "preprocessor_config.json")
    video = _processor_config(checkpoint, "video_processor", "video_preprocessor_config.json")
    patching = Patching(vision["patch_size"], vision["spatial_merge_size"], vision["temporal_patch_size"])
    for name, processor in (("image", image), ("video", video)):
        said = Patching(
            processor.get("patch_size", patching.patch_pixels),
            processor.get("merge_size", patching.merge),
            processor.get("temporal_patch_size", patching.frames),
        )
        if said != patching:
            raise ValueError(f"the {name} processor's {said} is not the vision tower's {patching}")
    head_dim = vision.get("head_dim") or vision["hidden_size"] // vision["num_heads"]
    rope = vision.get("rope_parameters") or {}
    image_size, video_size = image.get("size") or {}, video.get("size") or {}
    return Settings(
        patching=patching,
        image=ImageSettings(
            min_pixels=image.get("min_pixels") or image_size.get("shortest_edge", 56 * 56),
            max_pixels=image.get("max_pixels") or image_size.get("longest_edge", 28 * 28 * 1280),
        ),
        video=VideoSettings(
            min_pixels=video_size.get("shortest_edge", 128 * 32 * 32),
            max_pixels=video_size.get("longest_edge", 32 * 32 * 768),
            fps=video.get("fps") or 2,
            min_frames=video.get("min_frames", 4),
            max_frames=video.get("max_frames", 768),
            max_tokens_per_frame=video.get("max_video_tokens", 768),
        ),
        vision=VisionTower(
            table_side=math.isqrt(vision["num_position_embeddings"]),
            head_dim=head_dim,
            rope_theta=rope.get("rope_theta", 10_000.0),
        ),
        token_ids=TokenIds(
            image_pad=config["image_token_id"],
            video_pad=config["video_token_id"],
            vision_start=config["vision_start_token_id"],
            vision_end=config["vision_end_token_id"],
        ),
        context_length=context_length or config["text_config"]["max_position_embeddings"],
    )


def _processor_config(checkpoint: Path, section: str, file_name: str) -> dict[str, Any]:
    combined = checkpoint / "processor_config.json"
    if combined.exists() and section in (content := _read_json(combined)):
        return content[section]
    return _read_json(checkpoint / file_name)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
