"""Decodes the frames that were chosen, in order: stretches side by side, or one with all of a codec's threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack
from queue import Empty, Full, Queue, SimpleQueue

import av
import numpy as np
import numpy.typing as npt

from preprocess.errors import InvalidArgumentError
from preprocess.media.library import Library
from preprocess.media.segments import Stretch, decode_stretch, stretches
from preprocess.media.size import Size
from preprocess.media.timeline import Timeline
from preprocess.request.messages import Attachment

Picture = npt.NDArray[np.uint8]
"""Upright RGB, [height, width, 3]."""

_THREADS = 2
_FEW_FRAMES = 4
"""Wanted frames per stretch, on average, up to which stretches are decoded side by side."""
_STRETCHES_AHEAD = 8
"""Begun before those before them are out: while one takes long, the other threads have something to do."""
_FRAMES_AHEAD = 2
"""Of a stretch, before those of the stretches before it are out."""
_POLL_SECONDS = 0.1


def decode_distinct_frames(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    indices: npt.NDArray[np.int64],
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, Picture]]:
    """The frames of `timeline` with the rising `indices`, each once, in order, up to the first that does not decode.

    Calls `interrupt` where work goes on, in the caller's thread; what that raises ends the decoding. Raises
    InvalidArgumentError, with the time, where the decoder gives up.
    """
    for index, frame in _frames(library, video, timeline, indices, interrupt):
        yield index, _picture(frame)


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


def _frames(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    indices: npt.NDArray[np.int64],
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, av.VideoFrame]]:
    if timeline.counted:
        yield from _straight_through(library, video, timeline, indices, interrupt)
        return
    plan = stretches(timeline, indices)
    if len(indices) <= _FEW_FRAMES * len(plan):
        yield from _side_by_side(library, video, timeline, plan, interrupt)
        return
    with library.open_video(video) as source:
        for stretch in plan:
            yield from _one_stretch(video, timeline, stretch, source, interrupt)


_Decoding = Queue[tuple[int, av.VideoFrame] | BaseException | None]
"""Of a stretch: its frames as they come, few at a time, then None, or what went wrong."""


def _side_by_side(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    plan: Sequence[Stretch],
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Stretches of few frames leave nothing to share for a codec's own threads: several are decoded at a time."""
    stopped, progressed = threading.Event(), threading.Event()

    def go_on() -> None:
        progressed.set()
        if stopped.is_set():
            raise CancelledError

    with ExitStack() as stack:
        idle: SimpleQueue[tuple[av.container.InputContainer, av.VideoStream]] = SimpleQueue()
        for _ in range(_THREADS):
            container, stream = stack.enter_context(library.open_video(video))
            stream.codec_context.thread_count = 1
            idle.put((container, stream))
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix="decode"))
        stack.callback(stopped.set)

        def decode(stretch: Stretch, decoding: _Decoding) -> None:
            source = idle.get()
            try:
                for found in _one_stretch(video, timeline, stretch, source, go_on):
                    _put(decoding, found, go_on)
                _put(decoding, None, go_on)
            except CancelledError:
                pass
            except BaseException as error:
                _put(decoding, error, go_on)
            finally:
                idle.put(source)

        waiting = deque(plan)
        running: deque[_Decoding] = deque()
        while waiting or running:
            # Threads take the stretches in their order: that whose frames are due is always being decoded.
            while waiting and len(running) < _STRETCHES_AHEAD:
                running.append(Queue(_FRAMES_AHEAD))
                pool.submit(decode, waiting.popleft(), running[-1])
            decoding = running.popleft()
            while True:
                if progressed.is_set():
                    progressed.clear()
                    interrupt()
                try:
                    found = decoding.get(timeout=_POLL_SECONDS)
                except Empty:
                    continue
                if found is None:
                    break
                if isinstance(found, BaseException):
                    raise found
                yield found


def _put(
    decoding: _Decoding, found: tuple[int, av.VideoFrame] | BaseException | None, interrupt: Callable[[], None]
) -> None:
    while True:
        try:
            decoding.put(found, timeout=_POLL_SECONDS)
            return
        except Full:
            interrupt()


def _one_stretch(
    video: Attachment,
    timeline: Timeline,
    stretch: Stretch,
    source: tuple[av.container.InputContainer, av.VideoStream],
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, av.VideoFrame]]:
    reached = stretch.frames[0]
    try:
        for index, frame in decode_stretch(*source, timeline, stretch, interrupt):
            reached = index
            yield index, frame
    except av.FFmpegError as error:
        raise undecodable(video, timeline, reached) from error


def _straight_through(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    indices: npt.NDArray[np.int64],
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, av.VideoFrame]]:
    """For a container that stores no presentation times: the k-th frame that is decoded is frame k."""
    wanted = set(indices.tolist())
    with library.open_video(video) as (container, stream):
        index = 0
        try:
            for index, frame in enumerate(container.decode(stream)):
                interrupt()
                if index in wanted:
                    if frame.is_corrupt:
                        return
                    yield index, frame
        except av.FFmpegError as error:
            raise undecodable(video, timeline, min(index, len(timeline) - 1)) from error
