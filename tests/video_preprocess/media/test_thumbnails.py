"""Thumbnails find what a fixed bitrate hides in the packets' sizes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from preprocess.media.change import CUT
from preprocess.media.thumbnails import thumbnail_score

FPS = 25
FRAMES = 150
BLINK = (60, 65)
CUT_AT = 101


def still_scene(path: Path, codec: str) -> None:
    """A still picture with noise; a patch of it blinks for a fifth of a second; then another picture."""
    rng = np.random.default_rng(0)
    places = [np.kron(rng.integers(40, 200, (9, 16)), np.ones((16, 16), int)) for _ in range(2)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"preset": "ultrafast", "x265-params": "log-level=none"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 256, 144, "yuv420p", 400_000
        stream.codec_context.max_b_frames = 2
        for index in range(FRAMES):
            picture = places[index >= CUT_AT] + rng.normal(0, 4, (144, 256))
            if BLINK[0] <= index < BLINK[1]:
                picture[40:70, 100:150] = 255
            rgb = np.repeat(picture.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_sees_a_blink_and_a_cut(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "still.mp4"
    still_scene(path, codec)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ticks = np.sort([packet.pts for packet in container.demux(stream) if packet.pts is not None])
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1

    with av.open(str(path)) as container:
        score = thumbnail_score(container, container.streams.video[0], ticks, interrupt)
    assert calls > FRAMES // 4
    cut = np.flatnonzero(score == CUT)
    assert len(cut) == 1
    assert CUT_AT <= cut[0] < CUT_AT + 4
    strongest = np.argsort(np.where(score == CUT, 0, score))[::-1][:2]
    on, off = sorted(strongest)
    assert BLINK[0] <= on < BLINK[1]
    assert BLINK[1] <= off < BLINK[1] + 4
