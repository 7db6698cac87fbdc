"""Opens media: bytes or paths below the media root; what they are is read in their content, never in a name."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from preprocess.errors import InvalidArgumentError, NotFoundError, machine_resources, shown
from preprocess.media import edit_lists
from preprocess.media.attachment import Attachment
from preprocess.media.size import Size

VIDEO_FORMATS = "MP4, MOV, MKV, WebM and AVI"
MAX_SECONDS = 86_400.0
"""How long a video may be, unless it is set otherwise."""
MAX_STREAMS = 64
MAX_REQUEST_PIXELS = 1 << 30
"""How many pixels the different images of a request may have together, unless it is set otherwise."""
# FFmpeg's own lists: the demuxers that may look at a file at all, so that no playlist is ever followed, and the
# protocols that they may open.
_CONTAINER_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "protocol_whitelist": "file",
}
OWN_BYTES = 32 << 20
"""The memory that any task takes: what libraries keep beside pictures."""
# Memory of a video: frames that the codec's threads work on and refer to, or that wait to be shown, and RGB of some.
_FRAMES = 32
_RGB_BYTES = 18
_USUAL_BITS = 12
"""Bits of a pixel, where a video does not say how many it has."""


@dataclass(frozen=True)
class Library:
    """Where media come from, and the bounds on them. A worker has one too, with no root: it is handed open files."""

    root: Path | None
    """None: no paths are accepted."""
    max_frame_pixels: int
    max_seconds: float = MAX_SECONDS
    max_request_pixels: int = MAX_REQUEST_PIXELS
    """The bound on the different images of a request together, before they are resized."""
    demand: Callable[[int], None] = lambda needed_bytes: None
    """Called with the bytes of memory that decoding will take; a worker's raises NeedsMemoryError for too many."""

    def check_size(self, size: Size, name: str) -> None:
        if size.height * size.width > self.max_frame_pixels:
            raise InvalidArgumentError(
                f"{name} has {size.width}x{size.height} pixels; at most {self.max_frame_pixels} pixels are accepted"
            )

    @contextmanager
    def open_file(self, attachment: Attachment) -> Iterator[int]:
        """A descriptor of what it contains; raises NotFoundError or InvalidArgumentError if there is none."""
        with machine_resources():
            if isinstance(attachment.source, bytes):
                file = os.memfd_create("attachment", os.MFD_CLOEXEC)
            else:
                file = self._open(attachment)
        try:
            if isinstance(attachment.source, bytes):
                content = memoryview(attachment.source)
                with machine_resources():
                    while content:
                        content = content[os.write(file, content) :]
            yield file
        finally:
            os.close(file)

    @contextmanager
    def open_video(self, attachment: Attachment) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        """Opens the container and its best video stream; raises InvalidArgumentError if there is none to decode."""
        with self.open_file(attachment) as file:
            path = path_of(file)
            if path.stat().st_size == 0:
                raise InvalidArgumentError(f"{attachment.name} is empty")
            if too_much := edit_lists.excess(file):
                raise InvalidArgumentError(f"{attachment.name} has {too_much}")
            try:
                container = av.open(str(path), "r", options=dict(_CONTAINER_OPTIONS), metadata_errors="replace")
            except av.FFmpegError as error:
                raise InvalidArgumentError(
                    f"{attachment.name} is not a readable video: {error.strerror}; {VIDEO_FORMATS} are accepted"
                ) from error
            with container:
                stream = self._video_stream(container, attachment.name)
                bits = stream.format.padded_bits_per_pixel if stream.format is not None else _USUAL_BITS
                self.demand(video_bytes(Size(stream.height, stream.width), bits))
                yield container, stream

    def read_head(self, attachment: Attachment, head_bytes: int) -> tuple[bytes, int]:
        """The first bytes of what an attachment contains, and how many it has in all."""
        with self.open_file(attachment) as file:
            return os.pread(file, head_bytes, 0), os.fstat(file).st_size

    def _video_stream(self, container: av.container.InputContainer, name: str) -> av.VideoStream:
        if len(container.streams) > MAX_STREAMS:
            raise InvalidArgumentError(
                f"{name} has {len(container.streams)} streams; at most {MAX_STREAMS} are accepted"
            )
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
            raise InvalidArgumentError(f"{name} has no video stream that can be decoded")
        self.check_size(Size(stream.height, stream.width), name)
        # And whatever size the stream itself turns out to have.
        stream.codec_context.options = {"max_pixels": str(self.max_frame_pixels)}
        stream.thread_type = "AUTO"
        return stream

    def _open(self, attachment: Attachment) -> int:
        """Looks again at what it has opened: another file may lie at the place since it was located."""
        missing = self._missing(attachment.name, str(attachment.source))
        try:
            # Without waiting for the other end of a pipe.
            file = os.open(self.locate(attachment), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, PermissionError):
            raise missing from None
        if not stat.S_ISREG(os.fstat(file).st_mode) or not self._is_below_root(path_of(file)):
            os.close(file)
            raise missing
        return file

    def _is_below_root(self, opened: Path) -> bool:
        """A worker, which has no root, is handed what was checked."""
        return self.root is None or opened.readlink().is_relative_to(self.root.resolve())

    def locate(self, attachment: Attachment) -> Path:
        """Where the file is; attached bytes are in none."""
        source = attachment.source
        assert not isinstance(source, bytes)
        return source if isinstance(source, Path) else self.resolve(source, attachment.name)

    def resolve(self, path: str, name: str) -> Path:
        """The file that a path below the root means, symbolic links followed.

        The same error for a file that does not exist and for one elsewhere: it tells nothing about the world outside.
        """
        if self.root is None:
            raise InvalidArgumentError(
                f"{name} is the path {shown(path)}; this server has no media root and accepts bytes only"
            )
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path):
            raise InvalidArgumentError(f"{name} is the URL {shown(path)}; a path below the media root is accepted")
        try:
            root = self.root.resolve(strict=True)
            file = (root / path).resolve(strict=True)
            if file.is_relative_to(root) and file.is_file():
                return file
        except (OSError, ValueError, RuntimeError):
            pass
        raise self._missing(name, path)

    def _missing(self, name: str, path: str) -> NotFoundError:
        return NotFoundError(f"{name} is {shown(path)}; there is no such file below the media root")


def path_of(file: int) -> Path:
    """A path that this process can open as long as the descriptor is open."""
    return Path(f"/proc/self/fd/{file}")


def video_bytes(size: Size, bits_per_pixel: int) -> int:
    """The memory that it takes to decode frames of `bits_per_pixel`, padding included. Measured: the peaks of a worker
    and of the stage together, what they share counted once."""
    return OWN_BYTES + size.height * size.width * (math.ceil(_FRAMES * bits_per_pixel / 8) + _RGB_BYTES)
