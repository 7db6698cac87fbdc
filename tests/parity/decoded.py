"""Reads and samples a video the plain way, independently of stage 1: decode every frame, then take the reference's."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import reference
from PIL import Image
from transformers.video_utils import VideoMetadata


def upright_image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def sampled_video(content: bytes, options: dict[str, Any], processor: Any) -> reference.ReferenceVideo:
    """The frames that the reference's sampler takes, turned upright, with their presentation times.

    Constant rate: the reference's own `sample_frames`. Variable rate: as many frames, spread evenly over time, which
    the reference (index / nominal rate) cannot express.
    """
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        time_base = stream.time_base
        start = round((container.start_time or 0) / av.time_base / time_base)
        # AVI stores no presentation times: its frames are shown one after the other.
        counted = container.format.name == "avi"
    times = np.array([number if counted else frame.pts for number, frame in enumerate(frames)], dtype=np.int64)
    steps = np.diff(times)
    constant = len(steps) == 0 or steps.max() - steps.min() <= 1
    rate = float(1 / (np.mean(steps) * time_base)) if len(steps) else 1.0

    sampler = processor.video_processor
    limits = {"min_frames": options.get("min_frames"), "max_frames": options.get("max_frames")}
    for name, value in limits.items():
        limits[name] = getattr(sampler, name) if value is None else value
    count = int(len(frames) / rate * options.get("fps", sampler.fps) + 1e-6)
    count = min(max(count, limits["min_frames"]), limits["max_frames"], len(frames))
    if constant:
        metadata = VideoMetadata(total_num_frames=len(frames), fps=rate)
        indices = sampler.sample_frames(metadata, num_frames=count)
    else:
        wanted = np.linspace(times[0], times[-1], count)
        indices = np.interp(wanted, times, np.arange(len(times))).round(6).round().astype(int)

    chosen = [frames[i] for i in indices]
    turned = [np.rot90(frame.to_ndarray(format="rgb24"), k=(frame.rotation // 90) % 4) for frame in chosen]
    if time_base.numerator != 1:
        raise ValueError(f"time base {time_base} cannot be passed to the reference as a frame rate")
    return reference.ReferenceVideo(
        np.ascontiguousarray(np.stack(turned)), [int(times[i]) - start for i in indices], time_base.denominator
    )
