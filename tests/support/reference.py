"""The truth that everything is compared with: transformers' own Qwen3-VL processor and model, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tests.support.torchvision_operators  # noqa: F401  before transformers

from transformers import AutoProcessor, Qwen3VLForConditionalGeneration  # isort: skip
from transformers.video_utils import VideoMetadata  # isort: skip


@dataclass(frozen=True)
class ReferenceVideo:
    """Frames as decoded and turned upright, uint8 `[frames, height, width, 3]`, with the stream's own times.

    `presentation_times` are integers in units of `1 / time_base_denominator` seconds: the reference computes a frame's
    time as index / fps, so that these pass for index and fps and no rounding is added.
    """

    frames: np.ndarray
    presentation_times: Sequence[int]
    time_base_denominator: int


@dataclass(frozen=True)
class ReferencePrompt:
    token_ids: np.ndarray
    """`[tokens]`, pads expanded."""
    positions: np.ndarray
    """M-RoPE positions `[3, tokens]`."""
    inputs: dict[str, torch.Tensor]


@lru_cache(maxsize=4)
def load_processor(checkpoint: Path) -> Any:
    return AutoProcessor.from_pretrained(checkpoint)


@lru_cache(maxsize=4)
def load_model(checkpoint: Path) -> Qwen3VLForConditionalGeneration:
    return Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()


def process(
    checkpoint: Path,
    messages: Sequence[dict[str, Any]],
    videos: Sequence[ReferenceVideo] = (),
    images: Sequence[Any] = (),
) -> ReferencePrompt:
    """Runs the reference processor on `messages` (OpenAI chat format) with the media in order of appearance."""
    processor, model = load_processor(checkpoint), load_model(checkpoint)
    text = processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    media: dict[str, Any] = {}
    if videos:
        media["videos"] = [torch.from_numpy(v.frames).permute(0, 3, 1, 2) for v in videos]
        media["videos_kwargs"] = {
            "do_sample_frames": False,
            "cap_pixels_per_frame": True,
            "video_metadata": [
                VideoMetadata(
                    total_num_frames=len(v.frames),
                    fps=v.time_base_denominator,
                    frames_indices=list(v.presentation_times),
                )
                for v in videos
            ],
        }
    if images:
        media["images"] = list(images)
    inputs = dict(processor(text=[text], return_tensors="pt", **media))
    inputs.pop("video_metadata", None)
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs.get("image_grid_thw"),
        video_grid_thw=inputs.get("video_grid_thw"),
        attention_mask=inputs["attention_mask"],
    )
    return ReferencePrompt(inputs["input_ids"][0].numpy(), positions[:, 0].numpy(), inputs)


@torch.inference_mode()
def features(checkpoint: Path, prompt: ReferencePrompt) -> np.ndarray:
    """Packed rows `[visual tokens, hidden * (1 + levels)]` in the order of the prompt's visual tokens."""
    model = load_model(checkpoint).model
    config = model.config
    rows: dict[int, torch.Tensor] = {}
    for token, pixels, grid in (
        (config.image_token_id, "pixel_values", "image_grid_thw"),
        (config.video_token_id, "pixel_values_videos", "video_grid_thw"),
    ):
        if pixels in prompt.inputs:
            vision = model.visual(prompt.inputs[pixels], grid_thw=prompt.inputs[grid], return_dict=True)
            rows[token] = torch.cat([vision.pooler_output, *vision.deepstack_features], dim=-1)
    width = config.text_config.hidden_size * (1 + len(config.vision_config.deepstack_visual_indexes))
    packed = torch.zeros(len(prompt.token_ids), width)
    ids = torch.from_numpy(prompt.token_ids)
    for token, values in rows.items():
        packed[ids == token] = values
    return packed[torch.isin(ids, torch.tensor(list(rows)))].numpy() if rows else np.zeros((0, width), np.float32)


@torch.inference_mode()
def generate(checkpoint: Path, prompt: ReferencePrompt, max_tokens: int) -> list[int]:
    """Greedy continuation, the end-of-sequence tokens ignored, so that it is always `max_tokens` long."""
    model = load_model(checkpoint)
    output = model.generate(
        **prompt.inputs, do_sample=False, max_new_tokens=max_tokens, min_new_tokens=max_tokens, eos_token_id=None
    )
    return output[0, len(prompt.token_ids) :].tolist()
