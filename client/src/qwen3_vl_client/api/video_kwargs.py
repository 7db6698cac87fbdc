"""How a request says which frames are looked at: vLLM's two ways, and the server's own.

Qwen3-VL shows one visual token per 32×32 pixels of a pair of frames; bounds in pixels are turned into such tokens.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_PIXELS_PER_TOKEN = 32 * 32
_FRAMES_PER_TOKEN = 2
_MAX_FRAMES = 65_536
_MAX_TOKENS = 1 << 24
_MAX_PIXELS = _MAX_TOKENS * _PIXELS_PER_TOKEN


class _Kwargs(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Size(_Kwargs):
    """Bounds on a whole video, in pixels of all frames together."""

    longest_edge: int | None = Field(default=None, ge=1, le=_MAX_PIXELS * _FRAMES_PER_TOKEN)
    shortest_edge: int | None = Field(default=None, ge=1)
    """Ignored, like `min_pixels`."""


class MmProcessorKwargs(_Kwargs):
    """vLLM's `mm_processor_kwargs`: what its Qwen3-VL processor takes."""

    fps: float | None = Field(default=None, gt=0, le=60)
    num_frames: int | None = Field(default=None, ge=1, le=_MAX_FRAMES)
    min_frames: int | None = Field(default=None, ge=1, le=_MAX_FRAMES)
    max_frames: int | None = Field(default=None, ge=1, le=_MAX_FRAMES)
    do_sample_frames: bool | None = None
    """Ignored: frames are sampled once, when the video is read."""
    max_pixels: int | None = Field(default=None, ge=1, le=_MAX_PIXELS)
    """Of one frame."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Ignored: frames are not enlarged."""
    total_pixels: int | None = Field(default=None, ge=1, le=_MAX_PIXELS * _FRAMES_PER_TOKEN)
    """Of all frames together; another word for `size.longest_edge`."""
    size: Size | None = None

    def video_options(self) -> dict[str, Any]:
        options = _frames(self.num_frames)
        options |= _given({"fps": self.fps, "min_frames": self.min_frames, "max_frames": self.max_frames})
        if self.max_pixels is not None:
            options["max_tokens_per_frame"] = max(1, self.max_pixels // _PIXELS_PER_TOKEN)
        total_pixels = self.total_pixels or (self.size and self.size.longest_edge)
        if total_pixels:
            options["max_video_tokens"] = max(1, total_pixels // (_PIXELS_PER_TOKEN * _FRAMES_PER_TOKEN))
        return options


class VideoIoKwargs(_Kwargs):
    """How vLLM's loader samples; -1 leaves it to the processor."""

    num_frames: Literal[-1] | int | None = Field(default=None, le=_MAX_FRAMES)
    fps: float | None = Field(default=None, le=60)

    def video_options(self) -> dict[str, Any]:
        fps = self.fps if self.fps and self.fps > 0 else None
        num_frames = self.num_frames if self.num_frames and self.num_frames > 0 else None
        # With both, vLLM takes the fewer.
        frames = _given({"max_frames": num_frames}) if fps else _frames(num_frames)
        return _given({"fps": fps}) | frames


class MediaIoKwargs(_Kwargs):
    """vLLM's `media_io_kwargs`."""

    video: VideoIoKwargs | None = None


class VideoOptions(_Kwargs):
    """The server's `video_options`, which the server checks itself."""

    sampler: str | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    max_tokens_per_frame: int | None = None
    max_video_tokens: int | None = None
    context_length: int | None = None
    start: float | None = None
    """Seconds into the video where looking begins."""
    end: float | None = None
    subtitles: bool | str | None = None
    """Whether the video's lines are read beside its pictures; a language tag: those in that language."""


def merged_video_options(
    media_io: MediaIoKwargs | None, processor: MmProcessorKwargs | None, own: VideoOptions | None
) -> dict[str, Any]:
    """What the server is told: the later argument wins, as a processor samples what its loader left."""
    options: dict[str, Any] = {}
    if media_io is not None and media_io.video is not None:
        options |= media_io.video.video_options()
    if processor is not None:
        options |= processor.video_options()
    if own is not None:
        options |= own.model_dump(exclude_none=True)
    return options


def _frames(count: int | None) -> dict[str, Any]:
    return {} if count is None else {"min_frames": count, "max_frames": count}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
