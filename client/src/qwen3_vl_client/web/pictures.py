"""Pictures of a video at given times, decoded in processes of their own: a hostile file costs one of them."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import resource
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import av

_WORKERS = 2
_MEMORY_BYTES = 4 * 2**30
_CPU_SECONDS = 20
"""Of one picture; the limit of a process is moved on with each."""
_HEIGHT = 96
_CONTAINER_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "protocol_whitelist": "file",
    "max_pixels": str(64 * 2**20),
}


class NoPictureError(Exception):
    """The file has no picture there that can be decoded."""


class Pictures:
    """Decodes pictures, a few at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    async def jpeg(self, path: Path, seconds: float) -> bytes:
        """The frame that is shown at `seconds`, small. Raises NoPictureError."""
        with self._lock:
            self._pool = pool = self._pool or _start()
        try:
            return await asyncio.wrap_future(pool.submit(_jpeg, str(path), seconds))
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise NoPictureError(f"{path.name} broke its decoder") from None

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None


def _start() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(_WORKERS, multiprocessing.get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    # Ctrl-C reaches the whole group; the page ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _jpeg(path: str, seconds: float) -> bytes:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + _CPU_SECONDS, hard))
    try:
        with av.open(path, options=dict(_CONTAINER_OPTIONS), metadata_errors="replace") as container:
            frame = _frame(container, seconds)
            image = frame.reformat(width=max(round(frame.width * _HEIGHT / frame.height), 1), height=_HEIGHT).to_image()
    except (av.FFmpegError, MemoryError, ValueError, IndexError) as error:
        raise NoPictureError(f"no picture at {seconds} s: {error}") from None
    encoded = io.BytesIO()
    image.rotate(frame.rotation, expand=True).save(encoded, "JPEG", quality=80)
    return encoded.getvalue()


def _frame(container: av.container.InputContainer, seconds: float) -> av.VideoFrame:
    """The last frame at or before `seconds` on a player's clock."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.time_base is None:
        raise ValueError("it has no video stream")
    start = max(container.start_time or 0, 0) / av.time_base
    container.seek(int((start + seconds) / stream.time_base), stream=stream)
    shown: av.VideoFrame | None = None
    for frame in container.decode(stream):
        if shown is not None and frame.time is not None and frame.time - start > seconds + 0.001:
            break
        shown = frame
    if shown is None:
        raise ValueError("it has no frame")
    return shown
