"""A video that comes as its frames, `data:video/jpeg;base64,FRAME,FRAME,…`, as vLLM takes it.

The pictures are put into a video file as they are: nothing is decoded here, and the server reads them like any video.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
from PIL import Image, UnidentifiedImageError

from ...errors import InvalidRequest

_FRAME_LIST = re.compile(r"data:video/jpeg;base64,", re.IGNORECASE)
_TIME_BASE = Fraction(1, 1000)
"""Matroska's own."""
_MAX_FRAMES = 65_536
_MIN_RATE, _MAX_RATE = 1e-3, 1e3
_MAX_SECONDS = 1e7
_MAX_FRAME_PIXELS = 64 * 2**20
_MAX_PIXELS = 2**34
"""All frames may have so many together: 8,192 in full HD."""


@dataclass(frozen=True)
class FrameTimes:
    """When frames are shown: at `indices` ÷ `rate` seconds; without indices, one after the other."""

    rate: float = 1.0
    indices: tuple[int, ...] | None = None

    def seconds(self, frames: int) -> list[float]:
        """One per frame. Raises InvalidRequest for indices that do not belong to so many frames, and for times that a
        file cannot hold."""
        if not _MIN_RATE <= self.rate <= _MAX_RATE:
            raise InvalidRequest(
                f"fps is {self.rate:g}; for a list of frames {_MIN_RATE:g} to {_MAX_RATE:g} a second are accepted"
            )
        indices = range(frames) if self.indices is None else self.indices
        if len(indices) != frames:
            raise InvalidRequest(
                f"frames_indices has {len(indices)} values; one for each of the {frames} frames is accepted"
            )
        if indices[0] < 0 or any(after <= before for before, after in pairwise(indices)):
            raise InvalidRequest("frames_indices do not rise from 0 or above; the frames' own order is accepted")
        if indices[-1] > _MAX_SECONDS * self.rate:
            raise InvalidRequest(
                f"the last frame, {indices[-1]} of {self.rate:g} a second, is later than {_MAX_SECONDS:,.0f} s"
            )
        return [index / self.rate for index in indices]


ONE_A_SECOND = FrameTimes()


def is_frame_list(url: str) -> bool:
    return _FRAME_LIST.match(url) is not None


def count_frames(url: str) -> int:
    return url.count(",")


def as_video(url: str, times: FrameTimes, where: str) -> bytes:
    """A Matroska file with the frames as Motion JPEG.

    Raises:
        InvalidRequest: they are no JPEG files of one size in base64, or `times` are not theirs.
    """
    if (count := count_frames(url)) > _MAX_FRAMES:
        raise InvalidRequest(f"{where} has {count:,} frames; at most {_MAX_FRAMES:,} are accepted")
    seconds = times.seconds(count)
    try:
        frames = [base64.b64decode(frame, validate=True) for frame in url.split(",")[1:]]
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{where} is a data URI that is not base64: {error}") from None
    sizes = {_size(frame, where) for frame in frames}
    if len(sizes) > 1:
        raise InvalidRequest(f"{where} has frames of {len(sizes)} sizes; one size is accepted")
    width, height = sizes.pop()
    for pixels, bound, what in (
        (width * height, _MAX_FRAME_PIXELS, "a frame"),
        (width * height * count, _MAX_PIXELS, "all frames together"),
    ):
        if pixels > bound:
            raise InvalidRequest(f"{where} has {pixels:,} pixels in {what}; at most {bound:,} are accepted")
    return _contained(frames, (width, height), seconds, 1 / times.rate)


def _size(jpeg: bytes, where: str) -> tuple[int, int]:
    """By its header."""
    try:
        return Image.open(io.BytesIO(jpeg), formats=["JPEG"]).size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        raise InvalidRequest(f"{where} has a frame that is no JPEG file") from None


def _contained(frames: Sequence[bytes], size: tuple[int, int], seconds: Sequence[float], last_seconds: float) -> bytes:
    video = io.BytesIO()
    with av.open(video, "w", format="matroska") as container:
        stream = container.add_stream("mjpeg")
        assert isinstance(stream, av.VideoStream)
        (stream.width, stream.height), stream.pix_fmt = size, "yuvj420p"
        stream.time_base = _TIME_BASE
        if seconds[0] > 0:
            _start_at_zero(container)
        times = [round(second / _TIME_BASE) for second in (*seconds, seconds[-1] + last_seconds)]
        for frame, (time, end) in zip(frames, pairwise(times), strict=True):
            packet = av.Packet(frame)
            packet.stream, packet.time_base = stream, _TIME_BASE
            packet.pts = packet.dts = time
            packet.duration = end - time
            packet.is_keyframe = True
            container.mux(packet)
    return video.getvalue()


def _start_at_zero(container: av.container.OutputContainer) -> None:
    """Adds a sample of silence: a file's clock starts with what comes first in it."""
    silence = container.add_stream("pcm_s16le", rate=8000)
    packet = av.Packet(bytes(2))
    packet.stream, packet.time_base = silence, _TIME_BASE
    packet.pts = packet.dts = 0
    container.mux(packet)
