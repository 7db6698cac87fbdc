"""The sizes that pictures get, and the resizing: pixel for pixel what transformers' processors do."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from preprocess.errors import InvalidArgumentError
from preprocess.media.size import Size
from preprocess.settings import ImageSettings, Patching, VideoSettings

MAX_ASPECT_RATIO = 200


def image_size(original: Size, settings: ImageSettings, patching: Patching) -> Size:
    """The size that `Qwen2VLImageProcessor` gives an image: multiples of a token's side, so many pixels."""
    return _fit(original, 1, 1, settings.min_pixels, settings.max_pixels, patching.token_pixels)


def video_size(original: Size, frames: int, settings: VideoSettings, patching: Patching) -> Size:
    """The size that `Qwen3VLVideoProcessor` with `cap_pixels_per_frame` gives each of the frames of a video.

    A video of one frame, which the reference refuses, is a video of that frame twice.
    """
    frames = max(frames, patching.frames)
    factor = patching.token_pixels
    if min(original.height, original.width) < factor:
        scale = max(factor / original.height, factor / original.width)
        original = Size(int(original.height * scale), int(original.width * scale))
    cap = settings.max_tokens_per_frame * factor**2
    # The reference's floor; a request's own bounds may lie below it.
    floor = min(int(settings.min_pixels * 1.05), cap, settings.max_pixels)
    max_pixels = max(min(cap, settings.max_pixels // frames), floor) * frames
    counted = round(frames / patching.frames) * patching.frames
    return _fit(original, frames, counted, min(settings.min_pixels, max_pixels), max_pixels, factor)


def resize(picture: npt.NDArray[np.uint8], size: Size) -> torch.Tensor:
    """uint8 [height, width, 3] to uint8 [3, size.height, size.width]: antialiased bicubic, bitwise torchvision's."""
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)
    if (size.height, size.width) == picture.shape[:2]:
        return channels_first
    # A view, not a copy with contiguous planes: the same pixels, and four times as fast for 1080p.
    return torch.nn.functional.interpolate(
        channels_first[None],
        size=(size.height, size.width),
        mode="bicubic",
        align_corners=False,
        antialias=True,
    )[0]


def _fit(original: Size, frames: int, counted: int, min_pixels: int, max_pixels: int, factor: int) -> Size:
    """The reference's `smart_resize`. `counted` is `frames` rounded to whole temporal patches."""
    height, width = original.height, original.width
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise InvalidArgumentError(
            f"a picture of {width}x{height} pixels has an aspect ratio above {MAX_ASPECT_RATIO}, the largest accepted"
        )
    fitted_height, fitted_width = round(height / factor) * factor, round(width / factor) * factor
    pixels = counted * fitted_height * fitted_width
    if pixels > max_pixels:
        shrink = math.sqrt(frames * height * width / max_pixels)
        fitted_height = max(factor, math.floor(height / shrink / factor) * factor)
        fitted_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif pixels < min_pixels:
        grow = math.sqrt(min_pixels / (frames * height * width))
        fitted_height = math.ceil(height * grow / factor) * factor
        fitted_width = math.ceil(width * grow / factor) * factor
    return Size(fitted_height, fitted_width)
