"""Reads and samples a video the plain way, independently of stage 1: decode every frame, then take the reference's."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image
from transformers.video_utils import VideoMetadata

from tests.support import reference


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
        rates = (stream.average_rate, stream.guessed_rate)
        start = max(round((container.start_time or 0) / av.time_base / time_base), 0)
        # AVI stores no presentation times: its frames are shown one after the other.
        counted = container.format.name == "avi"
    times = np.array([number if counted else frame.pts for number, frame in enumerate(frames)], dtype=np.int64)
    start = min(start, int(times[0]))
    rate = _constant_rate(times, rates, time_base)
    seconds = len(frames) / float(rate) if rate else float((times[-1] + frames[-1].duration - times[0]) * time_base)

    sampler = processor.video_processor
    least, most = (options.get(name, getattr(sampler, name)) for name in ("min_frames", "max_frames"))
    count = min(max(int(seconds * options.get("fps", sampler.fps)), least), most, len(frames))
    if rate:
        metadata = VideoMetadata(total_num_frames=len(frames), fps=float(rate))
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


def _constant_rate(times: np.ndarray, rates: Iterable[Fraction | None], time_base: Fraction) -> Fraction | None:
    """The first of the rates on whose even grid every frame lies, within a tick."""
    for rate in rates:
        if rate and np.abs(times - times[0] - np.arange(len(times)) * float(1 / rate / time_base)).max() <= 1:
            return rate
    return None
