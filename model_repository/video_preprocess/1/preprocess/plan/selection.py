"""Selections: which frames of a video or image the model is shown, at which size. Decided without decoding it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Attachment
from preprocess.media.size import Size
from preprocess.media.video import Video
from preprocess.plan.prompt import PromptMedium
from preprocess.plan.resize import image_size, video_size
from preprocess.request.options import VideoOptions
from preprocess.sampling.mentions import mentioned_times
from preprocess.sampling.samplers import SAMPLERS, FrameIndices, SamplingBounds
from preprocess.settings import Patching, Settings

LEAST_TOKENS_PER_FRAME = 16
"""Where a bound on a video's tokens would leave a temporal patch fewer than this, fewer frames are looked at."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The part of an attachment that the model is shown. `video` and `indices` are None for an image."""

    attachment: Attachment
    size: Size
    """To which pictures are resized."""
    medium: PromptMedium
    video: Video | None = None
    indices: FrameIndices | None = None
    lines_left_out: int = 0
    """Subtitle lines that `medium` would show if there were room."""

    @property
    def temporal_patches(self) -> int:
        return max(len(self.medium.timestamps), 1)

    @property
    def tokens(self) -> int:
        return self.temporal_patches * self.medium.rows * self.medium.columns

    def after(self, temporal_patches: int, patching: Patching) -> Selection:
        """The rest of it after so many temporal patches, fewer than it has."""
        if self.indices is None or not temporal_patches:
            return self
        medium = replace(self.medium, timestamps=self.medium.timestamps[temporal_patches:])
        return replace(self, medium=medium, indices=self.indices[temporal_patches * patching.frames :])


def select_image(attachment: Attachment, original: Size, settings: Settings) -> Selection:
    """`original` is its upright size."""
    size = _named(attachment, lambda: image_size(original, settings.image, settings.patching))
    side = settings.patching.token_pixels
    return Selection(attachment, size, PromptMedium("image", size.height // side, size.width // side))


def select_video(
    video: Video,
    options: VideoOptions,
    settings: Settings,
    *,
    question: str = "",
    max_tokens: int | None = None,
    max_temporal_patches: int | None = None,
) -> Selection:
    """Chooses frames and their size; the adaptive sampler gives the times that `question` names frames of their own.

    `max_tokens` bounds the visual tokens of the video, beside the options' bounds. Without bounds their number and size
    are the reference's choice. With one, frames become smaller, and where they would fall below
    LEAST_TOKENS_PER_FRAME, fewer; an explicit `min_frames` is kept.
    """
    patching, limits = settings.patching, settings.video
    timeline = video.timeline
    if options.start is not None and options.start >= timeline.end_seconds:
        raise InvalidArgumentError(
            f"video_options.start is {options.start}; {video.attachment.name} ends at {timeline.end_seconds:.3f} s"
        )
    max_frames = options.max_frames or limits.max_frames
    tokens = min((bound for bound in (options.max_video_tokens, max_tokens) if bound is not None), default=None)
    if tokens is not None:
        patches = max(tokens // LEAST_TOKENS_PER_FRAME, 1)
        patches = min(patches, max_temporal_patches or patches)
        max_frames = max(min(max_frames, patches * patching.frames), options.min_frames or 1)
        limits = replace(limits, max_pixels=tokens * patching.token_pixels**2 * patching.frames)
    if options.max_tokens_per_frame is not None:
        limits = replace(limits, max_tokens_per_frame=options.max_tokens_per_frame)
    bounds = SamplingBounds(
        fps=options.fps or limits.fps,
        min_frames=options.min_frames or limits.min_frames,
        max_frames=max_frames,
        start_seconds=options.start,
        end_seconds=options.end,
        focus=mentioned_times(question, timeline.end_seconds),
    )
    indices = SAMPLERS[options.sampler](timeline, bounds)
    size = _named(video.attachment, lambda: video_size(video.size, len(indices), limits, patching))
    side = patching.token_pixels
    timestamps = _timestamps(timeline.seconds[indices], patching)
    medium = PromptMedium("video", size.height // side, size.width // side, timestamps)
    return Selection(video.attachment, size, medium, video, indices)


def _timestamps(seconds: npt.NDArray[np.float64], patching: Patching) -> tuple[float, ...]:
    """The mean time of the first and last frame of each temporal patch; the last frame is repeated to fill the last."""
    padded = np.append(seconds, np.repeat(seconds[-1:], -len(seconds) % patching.frames)).reshape(-1, patching.frames)
    return tuple(((padded[:, 0] + padded[:, -1]) / 2).tolist())


def _named(attachment: Attachment, fit: Callable[[], Size]) -> Size:
    try:
        return fit()
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{attachment.name}: {error.args[0]}") from None
