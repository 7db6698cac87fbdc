"""Decodes the frames that were chosen: once through the stream, forward, holding one frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from preprocess.errors import InvalidArgumentError
from preprocess.media import Library, upright_rgb
from preprocess.messages import Attachment
from preprocess.resize import Size
from preprocess.timeline import Timeline

Picture = npt.NDArray[np.uint8]
"""Upright RGB, [height, width, 3]."""


def decode_frames(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    indices: npt.NDArray[np.int64],
    interrupt: Callable[[], None],
) -> Iterator[Picture]:
    """The frames of `timeline` with the rising `indices`, in order, one for each index.

    Calls `interrupt` for each decoded frame; what that raises ends the decoding. Raises InvalidArgumentError, with the
    time, where the stream does not decode.
    """
    wanted = list(timeline.ticks[indices])
    reformatter = VideoReformatter()
    sent = 0
    for tick, frame in _frames(library, video, timeline, interrupt):
        if sent < len(wanted) and tick > wanted[sent]:
            break
        if frame.is_corrupt and tick == wanted[sent]:
            break
        picture = None
        while sent < len(wanted) and tick == wanted[sent]:
            if picture is None:
                rgb: Picture = reformatter.reformat(frame, format="rgb24").to_ndarray().astype(np.uint8, copy=False)
                picture = upright(rgb, frame.rotation)
            sent += 1
            yield picture
        if sent == len(wanted):
            return
    raise _undecodable(video, timeline, wanted[sent])


def first_frame_size(library: Library, video: Attachment) -> Size:
    """The upright size of a video's frames: how the picture is turned, PyAV says on decoded frames only."""
    with library.open_video(video) as (container, stream):
        try:
            frame = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise InvalidArgumentError(f"{video.name} cannot be decoded: {error.strerror}") from error
        if frame is None:
            raise InvalidArgumentError(f"{video.name} has no frame that can be decoded")
        sideways = _quarter_turns(frame.rotation) % 2 == 1
        return Size(frame.width, frame.height) if sideways else Size(frame.height, frame.width)


def decode_image(library: Library, attachment: Attachment) -> Picture:
    with library.open_image(attachment) as image:
        try:
            return np.array(upright_rgb(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidArgumentError(f"{attachment.name} cannot be decoded: {error}") from error


def upright(picture: Picture, rotation: int) -> Picture:
    """Turns a picture [height, width, 3] counterclockwise by `rotation` degrees, a multiple of 90."""
    return np.ascontiguousarray(np.rot90(picture, k=_quarter_turns(rotation)))


def _quarter_turns(rotation: int) -> int:
    return round(rotation / 90) % 4


def _frames(
    library: Library, video: Attachment, timeline: Timeline, interrupt: Callable[[], None]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every decoded frame with the tick at which the timeline shows it."""
    with library.open_video(video) as (container, stream):
        count = 0
        reached = timeline.ticks[0]
        try:
            for frame in container.decode(stream):
                interrupt()
                tick = timeline.ticks[min(count, len(timeline) - 1)] if timeline.counted else frame.pts
                count += 1
                if tick is not None:
                    reached = tick
                    yield int(tick), frame
        except av.FFmpegError as error:
            raise _undecodable(video, timeline, reached) from error


def _undecodable(video: Attachment, timeline: Timeline, tick: int) -> InvalidArgumentError:
    seconds = (tick - timeline.start_tick) / float(1 / timeline.time_base)
    return InvalidArgumentError(f"{video.name} cannot be decoded at {seconds:.3f} seconds")
