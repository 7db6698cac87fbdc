"""Reads the media of one request: by the workers, or out of the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.cache.disk_cache import DiskCache, digest
from preprocess.cache.speech import Transcriber, transcribed
from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Attachment
from preprocess.media.frames import Picture
from preprocess.media.library import Library
from preprocess.media.size import Size
from preprocess.media.sound import Samples
from preprocess.media.subtitles import Choice, subtitle_file
from preprocess.media.video import Video
from preprocess.workers.allowance import FIRST_BYTES, frames_seconds, image_seconds, reading_seconds, sound_seconds
from preprocess.workers.channel import Message
from preprocess.workers.pool import Workers
from preprocess.workers.serialise import pack_video, unpack_video
from preprocess.workers.shared_pictures import SharedPictures
from preprocess.workers.worker import Worker

Allowance = Callable[[int, int], int]
"""A task's processor time in seconds, from what every task has and the file's bytes."""


@dataclass(eq=False)
class Reader:
    """Reads the media of one request. Used by one thread, and closed by it.

    Every method that reads calls `interrupt` now and then; what that raises ends the reading. They raise RequestError
    for a medium that cannot be read or takes more than is accepted.
    """

    library: Library
    workers: Workers
    interrupt: Callable[[], None]
    cache: DiskCache | None = None
    owner: str = ""
    """Has a share of the workers, and its own entries in the cache; empty: everybody."""
    transcriber: Transcriber | None = None
    """For the speech of videos without subtitles."""
    _sizes: dict[bytes | str | Path, Size] = field(default_factory=dict)
    """The images whose header was read."""
    _copied: bytes | None = None
    """The upload that `_copy` is a file of."""
    _copy: int = -1
    _copies: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        self._copies.close()
        self._copied = None

    def digest(self, attachment: Attachment) -> str:
        """Names what an attachment contains; a file, which may be large, by its path, size and time of change."""
        if isinstance(attachment.source, bytes):
            return digest(attachment.source, self.library.max_frame_pixels)
        path = self.library.locate(attachment)
        status = path.stat()
        return digest(str(path), status.st_size, status.st_mtime_ns, self.library.max_frame_pixels)

    def key(self, kind: str, attachment: Attachment, *parts: object) -> str:
        """The cache's name for what follows from an attachment and `parts`, for this owner."""
        return digest(kind, self.owner, self.digest(attachment), *parts)

    def video(self, attachment: Attachment, *, thumbnails: bool, subtitles: Choice) -> Video:
        """All that is known of a video before it is decoded; with `thumbnails`, where its pictures change."""
        file = subtitle_file(self.library, attachment, subtitles)
        # A track in a language that is asked for is not the speech.
        transcriber = self.transcriber if subtitles is True else None
        if self.cache is None:
            return unpack_video(self._packed_video(attachment, thumbnails, subtitles, file, transcriber), attachment)
        speech = transcriber.name if transcriber else None
        key = self.key("video", attachment, thumbnails, subtitles, file, speech)
        content = self.cache.read(key)
        if content is None:
            content = self._packed_video(attachment, thumbnails, subtitles, file, transcriber)
            self.cache.write(key, content)
        return unpack_video(content, attachment)

    def frames(self, video: Video, indices: npt.NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        """`FrameDecoder.distinct_frames` by a worker. A picture is valid until the next is asked for."""
        task = {"task": "frames", "indices": indices.tolist()}
        # Its lines may be megabytes, and no picture shows them.
        content = pack_video(video.with_lines(()))

        def seconds(base: int, file_bytes: int) -> int:
            return frames_seconds(base, video.timeline, indices, video.size)

        return self._pictures(task, video.attachment, content, seconds)

    def sound(self, attachment: Attachment) -> Generator[tuple[float, Samples], None, None]:
        """`sound.decode_sound` by a worker."""
        with self._asked({"task": "sound"}, attachment, b"", sound_seconds) as (_, messages):
            for message in messages:
                if message.values["kind"] == "sound":
                    yield float(message.values["start"]), np.frombuffer(message.content, np.int16)

    def image_size(self, attachment: Attachment) -> Size:
        """The upright size of an image, whose header is read once.

        Raises InvalidArgumentError once the different images have too many pixels together.
        """
        if attachment.source in self._sizes:
            return self._sizes[attachment.source]
        size = Size(*json.loads(self._result({"task": "image_size"}, attachment)))
        pixels = sum(read.height * read.width for read in (*self._sizes.values(), size))
        if pixels > self.library.max_request_pixels:
            raise InvalidArgumentError(
                f"the images up to {attachment.name} have {pixels} pixels together; at most"
                f" {self.library.max_request_pixels} are accepted in a request (max_request_pixels)"
            )
        self._sizes[attachment.source] = size
        return size

    def image(self, attachment: Attachment) -> Iterator[Picture]:
        """The one picture of an image. It is valid until the next is asked for: the memory is the worker's."""

        def seconds(base: int, file_bytes: int) -> int:
            return image_seconds(base, file_bytes, self.library.max_frame_pixels)

        for _, picture in self._pictures({"task": "image"}, attachment, b"", seconds):
            yield picture

    def _packed_video(
        self,
        attachment: Attachment,
        thumbnails: bool,
        subtitles: Choice,
        file: bytes | None,
        transcriber: Transcriber | None,
    ) -> bytes:
        """`serialise.pack_video` of what a worker says of a video, and its speech where that is all there is."""
        content = self._result({"task": "video", "thumbnails": thumbnails, "subtitles": subtitles}, attachment, file)
        if transcriber is None or (video := unpack_video(content, attachment)).lines:
            return content
        with closing(self.sound(attachment)) as pieces:
            lines = transcribed(pieces, video.timeline.zero_seconds, transcriber, self.interrupt)
        return pack_video(video.with_lines(lines))

    def _result(self, task: dict[str, Any], attachment: Attachment, content: bytes | None = None) -> bytes:
        with self._asked(task, attachment, content or b"", reading_seconds) as (_, messages):
            *_, last = messages
            return last.content

    def _pictures(
        self, task: dict[str, Any], attachment: Attachment, content: bytes, seconds: Allowance
    ) -> Iterator[tuple[int, Picture]]:
        most_bytes = 3 * self.library.max_frame_pixels
        with self._asked(task, attachment, content, seconds) as (worker, messages):
            shared = None
            for message in messages:
                values = message.values
                if values["kind"] == "room":
                    shared = SharedPictures(min(int(values["slot_bytes"]), most_bytes), worker)
                elif values["kind"] == "picture":
                    assert shared is not None
                    yield int(values["index"]), shared.picture(values["slot"], values["height"], values["width"])
                    worker.reply(Message({"slot": values["slot"]}))

    @contextmanager
    def _asked(
        self, task: dict[str, Any], attachment: Attachment, content: bytes, seconds: Allowance
    ) -> Iterator[tuple[Worker, Iterator[Message]]]:
        """A worker that was given the task, and its messages.

        A task that needs more memory than others is given it once that is free. Raises InvalidArgumentError where it is
        more than is accepted.
        """
        limits = self.workers.limits
        base = limits.image_cpu_seconds if attachment.kind == "image" else limits.task_cpu_seconds
        most = min(limits.memory_bytes, self.workers.memory_bytes)
        # Attached bytes are copied into a file.
        copied = len(attachment.source) if isinstance(attachment.source, bytes) else 0
        needed = min(FIRST_BYTES, most)
        while True:
            held = min(needed + copied, self.workers.memory_bytes)
            with self.workers.lend(self.interrupt, self.owner, held) as worker, self._opened(attachment) as file:
                values = {
                    **task,
                    "name": attachment.name,
                    "media_kind": attachment.kind,
                    "max_frame_pixels": self.library.max_frame_pixels,
                    "max_seconds": self.library.max_seconds,
                    "cpu_seconds": min(seconds(base, os.fstat(file).st_size), limits.cpu_seconds),
                    "memory_bytes": needed,
                    "most_memory_bytes": most,
                }
                with closing(worker.run(Message(values, content, file), self.interrupt)) as messages:
                    first = next(messages)
                    if first.values["kind"] != "needs":
                        yield worker, chain([first], messages)
                        return
            needed = self._more(first, needed, attachment.name)

    @contextmanager
    def _opened(self, attachment: Attachment) -> Iterator[int]:
        """A descriptor of a file. The copy of an upload is kept until another is read: its tasks follow each other."""
        if not isinstance(attachment.source, bytes):
            with self.library.open_file(attachment) as file:
                yield file
            return
        if self._copied is not attachment.source:
            self.close()
            self._copy = self._copies.enter_context(self.library.open_file(attachment))
            self._copied = attachment.source
        yield self._copy

    def _more(self, message: Message, given: int, name: str) -> int:
        """How much memory a task needs that was given too little."""
        needed = int(message.values["bytes"])
        if needed <= given:
            raise ValueError(f"a task with {given} bytes of memory that asks for {needed}")
        workers = self.workers
        limits = {"worker_memory_bytes": workers.limits.memory_bytes, "max_decoding_bytes": workers.memory_bytes}
        setting, most = min(limits.items(), key=lambda limit: limit[1])
        if needed > most:
            raise InvalidArgumentError(
                f"{name} takes {needed} bytes of memory to read; at most {most} are accepted ({setting})"
            )
        return needed
