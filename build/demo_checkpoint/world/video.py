"""Real video files of the world, and what the sampler would see of them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from build.demo_checkpoint.world.drawing import draw_frames
from build.demo_checkpoint.world.world import HEIGHT, WIDTH, Script

_SILENCE_RATE = 8_000


def encode(frames: Iterable[np.ndarray], frames_per_second: int, *, quality: int = 22, start: float = 0.0) -> bytes:
    """An MP4 file with H.264; `quality` is x264's constant rate factor (18 is hardly visible loss, 28 is rough).

    `start`: seconds at which the first picture is shown; until then, and a moment longer, there is silence.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(frames_per_second), options={"preset": "veryfast", "crf": str(quality)}
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        if start:
            _add_silence(container, start)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = Fraction(1, frames_per_second)
            frame.pts = round(start * frames_per_second) + index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _add_silence(container: av.container.OutputContainer, seconds: float) -> None:
    stream = container.add_stream("aac", rate=_SILENCE_RATE, layout="mono")
    assert isinstance(stream, av.AudioStream)
    silence = np.zeros((1, round(seconds * _SILENCE_RATE)), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = _SILENCE_RATE, 0, Fraction(1, _SILENCE_RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_video(path: Path, script: Script) -> None:
    path.write_bytes(encode(draw_frames(script), script.frames_per_second))


def decode(file: bytes) -> np.ndarray:
    """All frames of a video file, uint8 `[frames, 64, 96, 3]`."""
    with av.open(io.BytesIO(file), "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
