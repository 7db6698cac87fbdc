"""How a request says which frames are looked at: vLLM's two ways, and the server's own.

Qwen3-VL shows one visual token per 32×32 pixels of a pair of frames; bounds in pixels are turned into such tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..media.frame_list import FrameTimes
from ..video_options import with_video_options

_PIXELS_PER_TOKEN = 32 * 32
_FRAMES_PER_TOKEN = 2
_MAX_FRAMES = 65_536
_MAX_RATE = 60
_MAX_TOKENS = 1 << 24
_MAX_PIXELS = _MAX_TOKENS * _PIXELS_PER_TOKEN


class _Kwargs(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


FrameIndex = Annotated[int, Field(ge=0, le=2**31 - 1)]
Rate = Annotated[float, Field(gt=0, le=_MAX_RATE)]


class Size(_Kwargs):
    """Bounds on a whole video, in pixels of all frames together."""

    longest_edge: int | None = Field(default=None, ge=1, le=_MAX_PIXELS * _FRAMES_PER_TOKEN)
    shortest_edge: int | None = Field(default=None, ge=1)
    """Ignored, like `min_pixels`."""


class MmProcessorKwargs(_Kwargs):
    """vLLM's `mm_processor_kwargs`: what its Qwen3-VL processor takes."""

    fps: Rate | Annotated[list[Rate], Field(min_length=1, max_length=1, fail_fast=True)] | None = None
    """Alone or, as qwen-vl-utils gives it, in a list. Of a list of frames that is not sampled, their rate."""
    num_frames: int | None = Field(default=None, ge=1, le=_MAX_FRAMES)
    min_frames: int | None = Field(default=None, ge=1, le=_MAX_FRAMES)
    max_frames: int | None = Field(default=None, ge=1, le=_MAX_FRAMES)
    do_sample_frames: bool | None = None
    """Ignored: frames are sampled once, when the video is read; those of a list are all shown unless this is true."""
    max_pixels: int | None = Field(default=None, ge=1, le=_MAX_PIXELS)
    """For one frame."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Ignored: frames are not enlarged."""
    total_pixels: int | None = Field(default=None, ge=1, le=_MAX_PIXELS * _FRAMES_PER_TOKEN)
    """For all frames together; another word for `size.longest_edge`."""
    size: Size | None = None

    @property
    def rate(self) -> float | None:
        return self.fps[0] if isinstance(self.fps, list) else self.fps

    def video_options(self) -> dict[str, Any]:
        options = _frames(self.num_frames)
        options |= _given({"fps": self.rate, "min_frames": self.min_frames, "max_frames": self.max_frames})
        if self.max_pixels is not None:
            options["max_tokens_per_frame"] = max(1, self.max_pixels // _PIXELS_PER_TOKEN)
        total_pixels = self.total_pixels or (self.size and self.size.longest_edge)
        if total_pixels:
            options["max_video_tokens"] = max(1, total_pixels // (_PIXELS_PER_TOKEN * _FRAMES_PER_TOKEN))
        return options


class VideoIoKwargs(_Kwargs):
    """How vLLM's loader samples; -1 leaves it to the processor. Of a list of frames, when they are shown."""

    num_frames: Literal[-1] | int | None = Field(default=None, le=_MAX_FRAMES)
    fps: float | None = Field(default=None, le=_MAX_RATE)
    frames_indices: Annotated[list[FrameIndex], Field(min_length=1, max_length=_MAX_FRAMES, fail_fast=True)] | None = (
        None
    )
    """The number of each frame of a list in the video that it is taken from, whose rate `fps` is."""
    total_num_frames: int | None = Field(default=None, ge=1)
    """Ignored, like `duration`: the last frame's time says as much."""
    duration: float | None = Field(default=None, ge=0)
    do_sample_frames: bool | None = None
    """As the processor's."""

    def video_options(self) -> dict[str, Any]:
        fps = self.fps if self.fps and self.fps > 0 else None
        num_frames = self.num_frames if self.num_frames and self.num_frames > 0 else None
        # With both, vLLM takes the fewer.
        frames = _given({"max_frames": num_frames}) if fps else _frames(num_frames)
        return _given({"fps": fps}) | frames


class MediaIoKwargs(_Kwargs):
    """vLLM's `media_io_kwargs`."""

    video: VideoIoKwargs | None = None


class VideoOptions(with_video_options(_Kwargs)):  # type: ignore[misc]
    """The server's `video_options`, which the server checks itself."""


def merged_video_options(
    media_io: MediaIoKwargs | None,
    processor: MmProcessorKwargs | None,
    own: VideoOptions | None,
    frame_lists: Sequence[int] = (),
) -> dict[str, Any]:
    """The options that the server gets: the later argument wins, as a processor samples what its loader left.

    `frame_lists` are the numbers of frames of the videos, where all come as lists of frames: these are not sampled.
    """
    options: dict[str, Any] = {}
    if media_io is not None and media_io.video is not None:
        options |= media_io.video.video_options()
    if processor is not None:
        options |= processor.video_options()
    if frame_lists and not _samples(media_io, processor):
        most = options.get("max_frames", _MAX_FRAMES)
        options |= {"sampler": "uniform", "fps": _MAX_RATE, "max_frames": min(most, max(frame_lists))}
        options.pop("min_frames", None)
    if own is not None:
        options |= own.model_dump(exclude_none=True)
    return options


def frame_times(media_io: MediaIoKwargs | None, processor: MmProcessorKwargs | None) -> FrameTimes:
    """When the frames of a list are shown."""
    loader = (media_io and media_io.video) or VideoIoKwargs()
    rate = loader.fps if loader.fps and loader.fps > 0 else None
    if rate is None and processor is not None and not _samples(media_io, processor):
        rate = processor.rate
    return FrameTimes(rate or 1.0, None if loader.frames_indices is None else tuple(loader.frames_indices))


def _samples(media_io: MediaIoKwargs | None, processor: MmProcessorKwargs | None) -> bool:
    """Whether the frames of a list are sampled: all are shown unless somebody asks for it."""
    loader = media_io and media_io.video
    return bool((loader and loader.do_sample_frames) or (processor and processor.do_sample_frames))


def _frames(count: int | None) -> dict[str, Any]:
    return {} if count is None else {"min_frames": count, "max_frames": count}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
