"""Files that cost whoever reads them."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.support.media import make_video

SPARSE_BYTES = 1_900_000_000
SRT_LINES = 150_000
EDITS = 1_000_000
PIXELS = 8192
ONE_KEY_FRAME_SIDE = 4096
ONE_KEY_FRAME_FRAMES = 3_000


def large_picture() -> bytes:
    """A PNG of 8192² pixels in some kilobytes."""
    encoded = io.BytesIO()
    Image.new("1", (PIXELS, PIXELS)).save(encoded, "PNG")
    return encoded.getvalue()


def sparse_file(path: Path) -> None:
    """A file that is almost as long as a reader takes, and occupies nothing."""
    with path.open("wb") as file:
        file.write(b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n")
        os.ftruncate(file.fileno(), SPARSE_BYTES)


def many_lines() -> bytes:
    """Subtitles (SRT) of 150,000 lines."""
    line = "{number}\n00:00:{second:02},{milli:03} --> 00:00:{second:02},{after:03}\nL{number}\n\n"
    return "".join(
        line.format(number=number, second=number // 1000 % 2, milli=number % 1000, after=min(number % 1000 + 1, 999))
        for number in range(1, SRT_LINES + 1)
    ).encode()


def many_edits(path: Path) -> None:
    """An MP4 whose edit list has a million entries."""
    make_video(path, width=96, height=64, frames=20, fps=10, seed=9)
    entry = struct.pack(">IiHH", 1, 0, 1, 0)
    edits = box(b"elst", struct.pack(">II", 0, EDITS) + entry * EDITS)
    path.write_bytes(replaced(path.read_bytes(), (b"moov", b"trak", b"edts", b"elst"), edits))


def box(kind: bytes, content: bytes) -> bytes:
    """A box of ISO 14496-12 with a length of 32 bits."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def replaced(content: bytes, path: Sequence[bytes], new: bytes) -> bytes:
    """The boxes in `content`, with another instead of the first one at `path`; a `trak` without it stays as it is.

    Raises ValueError where there is none.
    """
    found = _replaced(content, path, new)
    if found is None:
        raise ValueError(f"there is no box {b'/'.join(path).decode()}")
    return found


def _replaced(content: bytes, path: Sequence[bytes], new: bytes) -> bytes | None:
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if length < 8:
            return None
        if kind == path[0]:
            inner = content[place + 8 : place + length]
            made = new if len(path) == 1 else _replaced(inner, path[1:], new)
            if made is not None:
                whole = made if len(path) == 1 else box(kind, made)
                return content[:place] + whole + content[place + length :]
        place += length
    return None


def one_key_frame(path: Path) -> None:
    """A video of many large frames, of which only the first can be decoded alone: a late picture costs all of them."""
    side = ONE_KEY_FRAME_SIDE
    noise = np.random.default_rng(0).integers(0, 255, size=(side // 16, side // 16, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30, options={"q": "20"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.gop_size = ONE_KEY_FRAME_FRAMES
        stream.codec_context.max_b_frames = 0
        first: list[av.Packet] = []
        picture = np.repeat(np.repeat(noise, 16, axis=0), 16, axis=1)
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            first += stream.encode(frame)
        first += stream.encode(None)
        again = bytes(first[-1])
        container.mux(first[0])
        # Decoders take the same difference again and again.
        for number in range(1, ONE_KEY_FRAME_FRAMES):
            packet = av.Packet(again)
            packet.stream, packet.time_base = stream, Fraction(1, 30)
            packet.pts = packet.dts = number
            container.mux(packet)
