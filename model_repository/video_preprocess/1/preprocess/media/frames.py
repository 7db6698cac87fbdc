"""Decodes the frames that were chosen, in order: segments side by side, or one with all of a codec's threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import av
import numpy as np
import numpy.typing as npt

from preprocess.errors import InvalidArgumentError
from preprocess.in_order import in_order
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.media.segments import Segment, decode_segment, segments_of
from preprocess.media.size import Size
from preprocess.media.timeline import Timeline

Picture = npt.NDArray[np.uint8]
"""Upright RGB, [height, width, 3]."""

_THREADS = 2
_FEW_FRAMES = 4
"""Wanted frames per segment, on average, up to which segments are decoded side by side."""
_SEGMENTS_AHEAD = 8
_Source = tuple[av.container.InputContainer, av.VideoStream]
_Frame = tuple[int, av.VideoFrame]


@dataclass(frozen=True, eq=False)
class FrameDecoder:
    """Decodes frames of a video. Calls `interrupt` in the caller's thread as work goes on; what that raises ends it."""

    library: Library
    video: Attachment
    timeline: Timeline
    interrupt: Callable[[], None]

    def distinct_frames(self, indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        """The frames with the rising `indices`, each once, in order, up to the first that does not decode.

        Raises InvalidArgumentError, with the time, where the decoder gives up.
        """
        for index, frame in self._frames(indices):
            yield index, _picture(frame)

    def _frames(self, indices: npt.NDArray[np.int64]) -> Iterator[_Frame]:
        if self.timeline.counted:
            yield from self._straight_through(set(indices.tolist()))
            return
        plan = segments_of(self.timeline, indices)
        if len(indices) <= _FEW_FRAMES * len(plan):
            yield from self._side_by_side(plan)
            return
        with self.library.open_video(self.video) as source:
            for segment in plan:
                yield from self._one_segment(segment, source, self.interrupt)

    def _side_by_side(self, plan: Sequence[Segment]) -> Iterator[_Frame]:
        """Segments of few frames leave nothing to share for a codec's own threads: several are decoded at a time."""
        idle: SimpleQueue[_Source] = SimpleQueue()

        def decode(segment: Segment, go_on: Callable[[], None]) -> Generator[_Frame, None, None]:
            source = idle.get()
            try:
                yield from self._one_segment(segment, source, go_on)
            finally:
                idle.put(source)

        with ExitStack() as opened:
            for _ in range(_THREADS):
                container, stream = opened.enter_context(self.library.open_video(self.video))
                stream.codec_context.thread_count = 1
                idle.put((container, stream))
            jobs = [partial(decode, segment) for segment in plan]
            yield from in_order(jobs, _THREADS, _SEGMENTS_AHEAD, self.interrupt)

    def _one_segment(self, segment: Segment, source: _Source, interrupt: Callable[[], None]) -> Iterator[_Frame]:
        reached = segment.frames[0]
        try:
            for index, frame in decode_segment(*source, self.timeline, segment, interrupt):
                reached = index
                yield index, frame
        except av.FFmpegError as error:
            raise undecodable(self.video, self.timeline, reached) from error

    def _straight_through(self, wanted: set[int]) -> Iterator[_Frame]:
        """For a container that stores no presentation times: the k-th frame that is decoded is frame k."""
        with self.library.open_video(self.video) as (container, stream):
            index = 0
            try:
                for index, frame in enumerate(container.decode(stream)):
                    self.interrupt()
                    if index in wanted:
                        if frame.is_corrupt:
                            return
                        yield index, frame
            except av.FFmpegError as error:
                raise undecodable(self.video, self.timeline, min(index, len(self.timeline) - 1)) from error


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


def undecodable(video: Attachment, timeline: Timeline, index: int) -> InvalidArgumentError:
    return InvalidArgumentError(f"{video.name} cannot be decoded at {timeline.seconds[index]:.3f} seconds")


def _picture(frame: av.VideoFrame) -> Picture:
    """A view of the frame's pixels: whoever sends it on makes the only copy."""
    rgb = frame.reformat(format="rgb24")
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(rgb.height, plane.line_size)
    picture = rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    return np.rot90(picture, k=_quarter_turns(frame.rotation))


def _quarter_turns(rotation: int) -> int:
    return round(rotation / 90) % 4
