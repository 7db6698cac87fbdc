"""Decodes pictures, one after the other, in a process that `pictures.py` starts and ends.

Asked on standard input, a line of JSON `[path, seconds]` each. Answers on standard output: four bytes with the length,
big-endian, then a JPEG file; after the length 0 there is none.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
from pathlib import Path

import av

_MEMORY_BYTES = 2**30
_CPU_SECONDS = 5
"""One picture may take so many; the limit of the process is moved on with each."""
_HEIGHT = 96
_MAX_ASPECT = 16
_CONTAINER_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "protocol_whitelist": "file",
    "max_pixels": str(64 * 2**20),
}


def main() -> None:
    # Ctrl-C reaches the whole group; the page ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where memory runs out, a picture goes before the page.
    Path("/proc/self/oom_score_adj").write_text("1000")
    for line in sys.stdin.buffer:
        path, seconds = json.loads(line)
        _limit_cpu()
        picture = _jpeg(path, seconds)
        sys.stdout.buffer.write(len(picture).to_bytes(4, "big") + picture)
        sys.stdout.buffer.flush()


def _limit_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + _CPU_SECONDS, hard))


def _jpeg(path: str, seconds: float) -> bytes:
    """Empty where nothing can be decoded."""
    try:
        with av.open(path, options=dict(_CONTAINER_OPTIONS), metadata_errors="replace") as container:
            frame = _frame(container, seconds)
            width = min(max(round(frame.width * _HEIGHT / frame.height), 1), _HEIGHT * _MAX_ASPECT)
            image = frame.reformat(width=width, height=_HEIGHT).to_image()
    except (av.FFmpegError, MemoryError, ValueError, IndexError, OverflowError):
        return b""
    encoded = io.BytesIO()
    image.rotate(frame.rotation, expand=True).save(encoded, "JPEG", quality=80)
    return encoded.getvalue()


def _frame(container: av.container.InputContainer, seconds: float) -> av.VideoFrame:
    """The last frame at or before `seconds` on a player's clock."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.time_base is None:
        raise ValueError("it has no video stream")
    # Threads would take memory for each core of the machine.
    stream.codec_context.thread_count = 1
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


if __name__ == "__main__":
    main()
