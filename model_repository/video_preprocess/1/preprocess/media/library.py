"""Opens media: bytes or paths below the media root; what they are is read in their content, never in a name."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av
from PIL import Image, UnidentifiedImageError

from preprocess.cache.disk_cache import Memory, digest
from preprocess.cache.transcriber import Transcriber
from preprocess.errors import InvalidArgumentError, NotFoundError, machine_resources, shown
from preprocess.images.jpeg_scans import MAX_SCANNED_PIXELS, MAX_SCANS, count_scans
from preprocess.images.webp import HEAD_BYTES, webp_size
from preprocess.media import edit_lists
from preprocess.media.size import Size
from preprocess.media.subtitles import MAX_FILE_BYTES, SUFFIXES, Choice
from preprocess.request.messages import Attachment
from preprocess.workers.needs import image_bytes, video_bytes
from preprocess.workers.pool import Workers

VIDEO_FORMATS = "MP4, MOV, MKV, WebM and AVI"
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_OF_SCANS = ("JPEG", "MPO")
"""What Pillow calls images that begin as a JPEG file does."""
MAX_SECONDS = 86_400.0
"""Of a video, unless it is set otherwise."""
MAX_STREAMS = 64
MAX_REQUEST_PIXELS = 1 << 30
"""Of the different images of a request together, unless it is set otherwise."""
MAX_NEIGHBOURS = 50_000
"""Files of a folder among which a video's subtitles are looked for; in a larger one the plainest names are tried."""
# FFmpeg's own lists: the demuxers that may look at a file at all, so that no playlist is ever followed, and the
# protocols that they may open.
_CONTAINER_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "protocol_whitelist": "file",
}
_USUAL_BITS = 12
"""Of a pixel, where a video does not say which it has."""
# The bound is ours (Library.max_frame_pixels), and checked with a message that names the picture.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Library:
    """Where media come from and how large their pictures may be. `root` None: no paths are accepted."""

    root: Path | None
    max_frame_pixels: int
    memory: Memory | None = None
    """Of the videos that were looked at."""
    workers: Workers | None = None
    """Who reads the media; None where they are read: in a worker."""
    max_seconds: float = MAX_SECONDS
    transcriber: Transcriber | None = None
    """Of the speech of videos without subtitles."""
    max_request_pixels: int = MAX_REQUEST_PIXELS
    """Of the different images of a request together, before they are resized."""
    owner: str = ""
    """Whose request the media are for, which has a share of the workers; empty: everybody's."""
    demand: Callable[[int], None] | None = None
    """Told in a worker how many bytes of memory decoding will take; raises NeedsMemoryError for too many."""

    def digest(self, attachment: Attachment) -> str:
        """Names what an attachment contains; a file, which may be large, by its path, size and time of change."""
        if isinstance(attachment.source, bytes):
            return digest(attachment.source, self.max_frame_pixels)
        path = self._locate(attachment)
        status = path.stat()
        return digest(str(path), status.st_size, status.st_mtime_ns, self.max_frame_pixels)

    def subtitle_file(self, video: Attachment, choice: Choice) -> bytes | None:
        """What is in the subtitle file that came with a video or lies beside it, if that is wanted.

        Beside `talk.mp4` may lie `talk.srt` or, with a language tag, `talk.eng.srt`. Raises InvalidArgumentError for an
        attached file that is not wanted.
        """
        if video.subtitles is not None:
            if choice is False:
                raise InvalidArgumentError(
                    f"video_options.subtitles is false, and subtitles are attached to {video.name}; accepted is either"
                )
            return video.subtitles
        if choice is False or self.root is None or not isinstance(video.source, str):
            return None
        # Only beside a video that may be read itself; the name that was given counts, not that of what it links to.
        self._resolve(video.source, video.name)
        path = self.root / video.source
        language = "" if choice is True else f".{choice.lower()}"
        tagged = {name: Path(name.lower()).stem.removeprefix(path.stem.lower()) for name in _beside(path, language)}
        ranked = [name for name in tagged if tagged[name] == language]
        if choice is True:
            ranked += [name for name in tagged if re.fullmatch(r"\.[a-z]{2,3}(-[a-z0-9]+)*", tagged[name])]
        if not ranked:
            return None
        file = replace(video, source=self._resolve(f"{Path(video.source).parent}/{ranked[0]}", video.name))
        content, size = self.read_head(file, MAX_FILE_BYTES)
        if size > MAX_FILE_BYTES:
            raise InvalidArgumentError(
                f"the subtitle file of {video.name} has {size} bytes; at most {MAX_FILE_BYTES} bytes are accepted"
            )
        return content

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
            path = _path_of(file)
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
                if self.demand is not None:
                    bits = stream.format.padded_bits_per_pixel if stream.format is not None else _USUAL_BITS
                    self.demand(video_bytes(Size(stream.height, stream.width), bits))
                yield container, stream

    @contextmanager
    def open_image(self, attachment: Attachment) -> Iterator[Image.Image]:
        """Reads an image's header; raises InvalidArgumentError if it is none or too large."""
        with self.open_file(attachment) as file:
            if size := webp_size(os.pread(file, HEAD_BYTES, 0)):
                self._check_image(size, "WEBP", attachment.name)
            try:
                image = Image.open(_path_of(file), formats=IMAGE_FORMATS)
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
                raise InvalidArgumentError(
                    f"{attachment.name} is not a readable image; {', '.join(IMAGE_FORMATS)} are accepted"
                ) from error
            with image:
                size = Size(image.height, image.width)
                if image.format in _OF_SCANS:
                    _check_scans(file, size, attachment.name)
                self._check_image(size, image.format, attachment.name)
                yield image

    def _check_image(self, size: Size, format_: str | None, name: str) -> None:
        self.check_size(size, name)
        if self.demand is not None:
            self.demand(image_bytes(size, format_))

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
        """What lies at the place may have changed since it was looked at: it is looked at again once it is open."""
        missing = self._missing(attachment.name, str(attachment.source))
        try:
            # Without waiting for the other end of a pipe.
            file = os.open(self._locate(attachment), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, PermissionError):
            raise missing from None
        if not stat.S_ISREG(os.fstat(file).st_mode) or not self._is_below_root(_path_of(file)):
            os.close(file)
            raise missing
        return file

    def _is_below_root(self, opened: Path) -> bool:
        """A worker, which has no root, is handed what was checked."""
        return self.root is None or opened.readlink().is_relative_to(self.root.resolve())

    def _locate(self, attachment: Attachment) -> Path:
        """Where the file is; attached bytes are in none."""
        source = attachment.source
        assert not isinstance(source, bytes)
        return source if isinstance(source, Path) else self._resolve(source, attachment.name)

    def _resolve(self, path: str, name: str) -> Path:
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


def _check_scans(file: int, size: Size, name: str) -> None:
    most = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(size.height * size.width, 1))
    if count_scans(file) > most:
        raise InvalidArgumentError(
            f"{name} has more than {most} scans, the most accepted in a JPEG image of {size.width}x{size.height} pixels"
        )


def _path_of(file: int) -> Path:
    """A path that this process can open as long as the descriptor is open."""
    return Path(f"/proc/self/fd/{file}")


def _beside(video: Path, language: str) -> list[str]:
    """Names of subtitle files beside a video that begin as its own name does, in order."""
    stem = video.stem.lower()
    plain = [f"{video.stem}{language}{suffix}" for suffix in SUFFIXES]
    found = {name for name in plain if os.path.exists(video.parent / name)}  # noqa: PTH110 - False for long names too
    with suppress(PermissionError), machine_resources(), os.scandir(video.parent) as entries:
        for entry in islice(entries, MAX_NEIGHBOURS):
            name = entry.name.lower()
            if name.startswith(stem) and name.endswith(SUFFIXES):
                found.add(entry.name)
    return sorted(found)
