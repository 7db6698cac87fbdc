"""Media read by the workers: what is known of a video, its frames, images.

All of these call `interrupt` now and then; what that raises ends the reading. They raise RequestError for a medium that
cannot be read or takes more than is accepted.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.errors import InvalidArgumentError, machine_resources
from preprocess.media.frames import Picture
from preprocess.media.library import Library
from preprocess.media.size import Size
from preprocess.media.sound import Samples
from preprocess.media.subtitles import Choice
from preprocess.media.video import Video
from preprocess.request.messages import Attachment
from preprocess.workers.allowance import frames_seconds, image_seconds, look_seconds, sound_seconds
from preprocess.workers.channel import SLOTS, Message
from preprocess.workers.needs import FIRST_BYTES
from preprocess.workers.pool import Worker, Workers
from preprocess.workers.serialise import pack_video

Interrupt = Callable[[], None]
Allowance = Callable[[int, int], int]
"""A task's processor time in seconds, of that which every task has and the file's bytes."""


def read_video(
    attachment: Attachment,
    library: Library,
    *,
    closer: bool,
    subtitles: Choice,
    subtitle_file: bytes | None,
    interrupt: Interrupt,
) -> bytes:
    """`packing.pack_video` of what is known of a video before it is decoded; `closer`: of its thumbnails too."""
    task = {"task": "look", "closer": closer, "subtitles": subtitles}
    return _result(task, attachment, library, interrupt, subtitle_file or b"")


def read_frames(
    video: Video, library: Library, indices: npt.NDArray[np.int64], interrupt: Interrupt
) -> Iterator[tuple[int, Picture]]:
    """`frames.decode_distinct_frames` by a worker. A picture is valid until the next is asked for."""
    task = {"task": "frames", "indices": indices.tolist()}
    # Its lines may be megabytes, and no picture shows them.
    content = pack_video(video.with_lines(()))

    def seconds(base: int, file_bytes: int) -> int:
        return frames_seconds(base, video.timeline, indices, video.size)

    return _pictures(task, video.attachment, library, interrupt, content, seconds)


def read_sound(
    attachment: Attachment, library: Library, interrupt: Interrupt
) -> Generator[tuple[float, Samples], None, None]:
    """`sound.decode_sound` by a worker."""
    with _asked({"task": "sound"}, attachment, library, interrupt, b"", sound_seconds) as (_, messages):
        for message in messages:
            if message.values["kind"] == "sound":
                yield float(message.values["start"]), np.frombuffer(message.content, np.int16)


def read_image_size(attachment: Attachment, library: Library, interrupt: Interrupt) -> Size:
    """The upright size of an image."""
    return Size(*json.loads(_result({"task": "image_size"}, attachment, library, interrupt)))


def read_image(attachment: Attachment, library: Library, interrupt: Interrupt) -> Iterator[Picture]:
    """The one picture of an image. It is valid until the next is asked for: the memory is the worker's."""

    def seconds(base: int, file_bytes: int) -> int:
        return image_seconds(base, file_bytes, library.max_frame_pixels)

    for _, picture in _pictures({"task": "image"}, attachment, library, interrupt, seconds=seconds):
        yield picture


def _result(
    task: dict[str, Any], attachment: Attachment, library: Library, interrupt: Interrupt, content: bytes = b""
) -> bytes:
    with _asked(task, attachment, library, interrupt, content, look_seconds) as (_, messages):
        *_, last = messages
        return last.content


def _pictures(
    task: dict[str, Any],
    attachment: Attachment,
    library: Library,
    interrupt: Interrupt,
    content: bytes = b"",
    seconds: Allowance = look_seconds,
) -> Iterator[tuple[int, Picture]]:
    most_bytes = 3 * library.max_frame_pixels
    with _asked(task, attachment, library, interrupt, content, seconds) as (worker, messages):
        shared = None
        for message in messages:
            values = message.values
            if values["kind"] == "room":
                shared = _SharedPictures(min(int(values["slot_bytes"]), most_bytes), worker)
            elif values["kind"] == "picture":
                assert shared is not None
                yield int(values["index"]), shared.picture(values["slot"], values["height"], values["width"])
                worker.reply(Message({"slot": values["slot"]}))


@contextmanager
def _asked(
    task: dict[str, Any],
    attachment: Attachment,
    library: Library,
    interrupt: Interrupt,
    content: bytes,
    seconds: Allowance,
) -> Iterator[tuple[Worker, Iterator[Message]]]:
    """A worker that was given the task, and what it says. One that needs more memory than others is given it once that
    is free; raises InvalidArgumentError where it is more than is accepted.
    """
    workers = library.workers
    assert workers is not None
    limits = workers.limits
    base = limits.image_cpu_seconds if attachment.kind == "image" else limits.task_cpu_seconds
    most = min(limits.memory_bytes, workers.memory_bytes)
    # Attached bytes are copied into a file.
    copied = len(attachment.source) if isinstance(attachment.source, bytes) else 0
    needed = min(FIRST_BYTES, most)
    while True:
        with (
            workers.lend(interrupt, library.owner, min(needed + copied, workers.memory_bytes)) as worker,
            library.open_file(attachment) as file,
        ):
            values = {
                **task,
                "name": attachment.name,
                "media_kind": attachment.kind,
                "max_frame_pixels": library.max_frame_pixels,
                "max_seconds": library.max_seconds,
                "cpu_seconds": min(seconds(base, os.fstat(file).st_size), limits.cpu_seconds),
                "memory_bytes": needed,
                "most_memory_bytes": most,
            }
            with closing(worker.run(Message(values, content, file), interrupt)) as messages:
                first = next(messages)
                if first.values["kind"] != "needs":
                    yield worker, chain([first], messages)
                    return
        needed = _more(first, needed, workers, attachment.name)


def _more(message: Message, given: int, workers: Workers, name: str) -> int:
    """How much memory a task needs that was given too little."""
    needed = int(message.values["bytes"])
    if needed <= given:
        raise ValueError(f"a task with {given} bytes of memory that asks for {needed}")
    limits = {"worker_memory_bytes": workers.limits.memory_bytes, "max_decoding_bytes": workers.memory_bytes}
    setting, most = min(limits.items(), key=lambda limit: limit[1])
    if needed > most:
        raise InvalidArgumentError(
            f"{name} takes {needed} bytes of memory to read; at most {most} are accepted ({setting})"
        )
    return needed


class _SharedPictures:
    """Memory that a worker writes pictures to. Its size is sealed: nobody can take away what is being read."""

    def __init__(self, slot_bytes: int, worker: Worker) -> None:
        with machine_resources():
            file = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(file, SLOTS * slot_bytes)
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
                self._memory = mmap.mmap(file, SLOTS * slot_bytes)
                worker.reply(Message({}, file=file))
            finally:
                os.close(file)
        self._slot_bytes = slot_bytes

    def picture(self, slot: int, height: int, width: int) -> Picture:
        """A view; raises ValueError for one that lies outside."""
        if not 0 <= slot < SLOTS or height < 1 or width < 1 or 3 * height * width > self._slot_bytes:
            raise ValueError(f"a picture of {width}x{height} in slot {slot}")
        pixels = np.frombuffer(self._memory, np.uint8, 3 * height * width, slot * self._slot_bytes)
        return pixels.reshape(height, width, 3)
