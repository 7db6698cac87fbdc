"""A worker: the process that reads media for the stage, and may crash or be stopped instead of it.

It does one task after the other, each on a file that it is handed open: it has no need of names or paths. A codec that
leads it astray finds the limits of `WorkerLimits`, and costs the request whose file it was.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOMEM
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.errors import RequestError
from preprocess.images.images import decode_image, read_image_size
from preprocess.media.attachment import Attachment
from preprocess.media.frames import FrameDecoder, Picture
from preprocess.media.library import Library
from preprocess.media.sound import Samples, decode_sound
from preprocess.media.subtitles import read_subtitles
from preprocess.media.video import open_video, read_thumbnails
from preprocess.workers.allowance import MORE, NeedsMemoryError
from preprocess.workers.channel import SLOTS, Exchange, Message
from preprocess.workers.serialise import pack_video, unpack_video

ALIVE_SECONDS = 0.5
_UNTOUCHED_BYTES = 256 << 20
"""Memory that is asked for and hardly used: the stacks of a codec's threads."""
_PR_SET_PDEATHSIG = 1


def main(end: int, parent: int, memory_bytes: int) -> None:
    """Serves on the descriptor `end` until the stage, the process `parent`, hangs up or is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where memory runs out, a worker goes before a stage.
    Path("/proc/self/oom_score_adj").write_text("1000")
    exchange = Exchange(socket.socket(fileno=end))
    while True:
        try:
            task = exchange.receive()
        except EOFError:
            return
        if "task" not in task.values:
            # The place of a picture is given back, of a task that has failed since.
            continue
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + task.values["cpu_seconds"], resource.RLIM_INFINITY))
        exchange.send(_answer(task, exchange))


def _answer(task: Message, exchange: Exchange) -> Message:
    values = task.values
    assert task.file is not None
    courier = Courier(exchange)

    def demand(needed_bytes: int) -> None:
        if needed_bytes > values["memory_bytes"]:
            raise NeedsMemoryError(needed_bytes)

    try:
        attachment = Attachment(values["media_kind"], values["name"], Path(f"/proc/self/fd/{task.file}"))
        library = Library(None, values["max_frame_pixels"], max_seconds=values["max_seconds"], demand=demand)
        with _memory_of(values["memory_bytes"]):
            content = _TASKS[values["task"]](task, attachment, library, courier)
        courier.wait_until_all_is_read()
    except NeedsMemoryError as error:
        return Message({"kind": "needs", "bytes": error.needed_bytes})
    except (RequestError, MemoryError, OSError) as error:
        if _lacks_memory(error):
            return _lacking(values, courier)
        if not isinstance(error, RequestError):
            raise
        return _error(error.code, str(error.args[0]))
    finally:
        os.close(task.file)
    return Message({"kind": "done"}, content)


@contextmanager
def _memory_of(task_bytes: int) -> Iterator[None]:
    """Bounds what a task takes, whatever its file said of itself. What is shared with the stage is not counted."""
    status = Path("/proc/self/status").read_text()
    has = 1024 * int(status.partition("VmData:")[2].split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (has + task_bytes + _UNTOUCHED_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _lacking(values: dict[str, Any], courier: Courier) -> Message:
    """For a task that ran out of memory: it may have more, unless that is no use or it has handed over a part."""
    given, most = values["memory_bytes"], values["most_memory_bytes"]
    if given < most and not courier.has_handed_over:
        return Message({"kind": "needs", "bytes": min(MORE * given, most)})
    return _error(
        "invalid_argument",
        f"{values['name']} takes more than {given} bytes of memory to read, the most accepted for pictures of its size",
    )


def _error(code: str, message: str) -> Message:
    return Message({"kind": "error", "code": code, "message": message})


def _lacks_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == ENOMEM):
            return True
        error = error.__cause__
    return False


class Courier:
    """Brings what a task has so far to the stage: pictures, and signs of life."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._heard = time.monotonic()
        self.has_handed_over = False
        """Whether the stage has a part of the task's result."""
        self._memory: mmap.mmap | None = None
        self._slot_bytes = 0
        self._free: deque[int] = deque(range(SLOTS))

    def is_alive(self) -> None:
        """To be called where work goes on."""
        if time.monotonic() - self._heard >= ALIVE_SECONDS:
            self._send({"kind": "alive"})

    def send_picture(self, index: int, picture: Picture) -> None:
        """Puts a picture where the stage can see it, once there is room."""
        if picture.nbytes > self._slot_bytes:
            self._make_room(picture.nbytes)
        if not self._free:
            self._wait_for_slot()
        assert self._memory is not None
        slot = self._free.popleft()
        height, width, _ = picture.shape
        self.has_handed_over = True
        place = np.frombuffer(self._memory, np.uint8, picture.size, slot * self._slot_bytes)
        np.copyto(place.reshape(picture.shape), picture)
        self._send({"kind": "picture", "index": index, "slot": slot, "height": height, "width": width})

    def send_sound(self, start: float, samples: Samples) -> None:
        """Waits while the stage has enough to do: a socket holds little."""
        self.has_handed_over = True
        self._send({"kind": "sound", "start": start}, samples.tobytes())

    def wait_until_all_is_read(self) -> None:
        while len(self._free) < SLOTS:
            self._wait_for_slot()

    def _make_room(self, slot_bytes: int) -> None:
        self.wait_until_all_is_read()
        self._send({"kind": "room", "slot_bytes": slot_bytes})
        file = self._exchange.receive().file
        assert file is not None
        self._memory = mmap.mmap(file, SLOTS * slot_bytes)
        self._slot_bytes = slot_bytes
        os.close(file)

    def _wait_for_slot(self) -> None:
        self._free.append(self._exchange.receive().values["slot"])

    def _send(self, values: dict[str, Any], content: bytes = b"") -> None:
        self._exchange.send(Message(values, content))
        self._heard = time.monotonic()


def _video(task: Message, attachment: Attachment, library: Library, courier: Courier) -> bytes:
    """All that is known of a video before it is decoded."""
    values = task.values
    track = False if task.content else values["subtitles"]
    video = open_video(attachment, library, courier.is_alive, subtitles=track)
    if values["thumbnails"]:
        video = read_thumbnails(video, library, courier.is_alive)
    if task.content:
        video = video.with_lines(read_subtitles(task.content, f"the subtitle file of {attachment.name}"))
    return pack_video(video)


def _frames(task: Message, attachment: Attachment, library: Library, courier: Courier) -> bytes:
    video = unpack_video(task.content, attachment)
    indices = np.array(task.values["indices"], np.int64)
    for index, picture in FrameDecoder(library, attachment, video.timeline, courier.is_alive).distinct_frames(indices):
        courier.send_picture(index, picture)
    return b""


def _sound(task: Message, attachment: Attachment, library: Library, courier: Courier) -> bytes:
    for start, samples in decode_sound(library, attachment, courier.is_alive):
        courier.send_sound(start, samples)
    return b""


def _image_size(task: Message, attachment: Attachment, library: Library, courier: Courier) -> bytes:
    size = read_image_size(library, attachment)
    return json.dumps([size.height, size.width]).encode()


def _image(task: Message, attachment: Attachment, library: Library, courier: Courier) -> bytes:
    courier.send_picture(0, decode_image(library, attachment))
    return b""


_TASKS: dict[str, Callable[[Message, Attachment, Library, Courier], bytes]] = {
    "video": _video,
    "frames": _frames,
    "sound": _sound,
    "image_size": _image_size,
    "image": _image,
}
