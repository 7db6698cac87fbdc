"""Decodes the frames that were chosen, in order, and resizes them: stretches side by side, or one with all threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from queue import SimpleQueue

import av
import numpy as np
import numpy.typing as npt
import torch

from preprocess.errors import InvalidArgumentError
from preprocess.media import Library, upright_rgb
from preprocess.messages import Attachment
from preprocess.resize import Size, resize
from preprocess.stretches import Stretch, decode_stretch, stretches
from preprocess.timeline import Timeline

Picture = npt.NDArray[np.uint8]
"""Upright RGB, [height, width, 3]."""

_WORKERS = 2
_FEW_FRAMES = 4
"""Wanted frames per stretch, on average, up to which stretches are decoded side by side, each held as a whole."""
_INTERRUPT_SECONDS = 0.2


def decode_frames(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    indices: npt.NDArray[np.int64],
    size: Size,
    interrupt: Callable[[], None],
) -> Iterator[torch.Tensor]:
    """The frames of `timeline` with the rising `indices`, in order, one for each index: uint8 [3, height, width].

    Calls `interrupt` now and then, in the caller's thread; what that raises ends the decoding. Raises
    InvalidArgumentError, with the time, where the stream does not decode.
    """
    repeats = deque(indices.tolist())
    for index, picture in _distinct_frames(library, video, timeline, indices, size, interrupt):
        while repeats and repeats[0] == index:
            repeats.popleft()
            yield picture
        if not repeats:
            return
    raise _undecodable(video, timeline, timeline.ticks[repeats[0]])


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


def _distinct_frames(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    indices: npt.NDArray[np.int64],
    size: Size,
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, torch.Tensor]]:
    """The frames with their indices, up to the first that does not decode."""
    if timeline.counted:
        yield from _straight_through(library, video, timeline, indices, size, interrupt)
        return
    plan = stretches(timeline, indices)
    if len(indices) <= _FEW_FRAMES * len(plan):
        yield from _side_by_side(library, video, timeline, plan, size, interrupt)
        return
    with library.open_video(video) as source:
        for stretch in plan:
            yield from _resized(video, timeline, stretch, source, size, interrupt)


def _side_by_side(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    plan: Sequence[Stretch],
    size: Size,
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, torch.Tensor]]:
    """Stretches of few frames leave nothing to share for a codec's own threads: several are decoded at a time."""
    stopped = threading.Event()

    def go_on() -> None:
        if stopped.is_set():
            raise CancelledError

    with ExitStack() as stack:
        idle: SimpleQueue[tuple[av.container.InputContainer, av.VideoStream]] = SimpleQueue()
        for _ in range(_WORKERS):
            container, stream = stack.enter_context(library.open_video(video))
            stream.codec_context.thread_count = 1
            idle.put((container, stream))
        pool = stack.enter_context(ThreadPoolExecutor(_WORKERS, thread_name_prefix="decode"))
        stack.callback(stopped.set)

        def decode(stretch: Stretch) -> list[tuple[int, torch.Tensor]]:
            source = idle.get()
            try:
                return list(_resized(video, timeline, stretch, source, size, go_on))
            finally:
                idle.put(source)

        waiting = deque(plan)
        running: deque[Future[list[tuple[int, torch.Tensor]]]] = deque()
        while waiting or running:
            while waiting and len(running) < 2 * _WORKERS:
                running.append(pool.submit(decode, waiting.popleft()))
            while not wait([running[0]], timeout=_INTERRUPT_SECONDS).done:
                interrupt()
            interrupt()
            yield from running.popleft().result()


def _resized(
    video: Attachment,
    timeline: Timeline,
    stretch: Stretch,
    source: tuple[av.container.InputContainer, av.VideoStream],
    size: Size,
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, torch.Tensor]]:
    reached = stretch.frames[0]
    try:
        for index, frame in decode_stretch(*source, timeline, stretch, interrupt):
            reached = index
            yield index, resize(_picture(frame), size)
    except av.FFmpegError as error:
        raise _undecodable(video, timeline, timeline.ticks[reached]) from error


def _straight_through(
    library: Library,
    video: Attachment,
    timeline: Timeline,
    indices: npt.NDArray[np.int64],
    size: Size,
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, torch.Tensor]]:
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
                    yield index, resize(_picture(frame), size)
        except av.FFmpegError as error:
            raise _undecodable(video, timeline, timeline.ticks[min(index, len(timeline) - 1)]) from error


def _picture(frame: av.VideoFrame) -> Picture:
    rgb: Picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return upright(rgb, frame.rotation)


def _undecodable(video: Attachment, timeline: Timeline, tick: int) -> InvalidArgumentError:
    seconds = (tick - timeline.start_tick) / float(1 / timeline.time_base)
    return InvalidArgumentError(f"{video.name} cannot be decoded at {seconds:.3f} seconds")
