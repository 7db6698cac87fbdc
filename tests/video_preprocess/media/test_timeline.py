"""Times and pictures against what the file was made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from preprocess.chunks.decode import decode_frames
from preprocess.media.attachment import Attachment
from preprocess.media.size import Size
from preprocess.media.video import Video, open_video
from preprocess.sampling.samplers import SamplingBounds, uniform
from preprocess.workers.reader import Reader
from tests.support import media

Encode = Callable[..., bytes]


def opened(content: bytes, reader: Reader) -> Video:
    return open_video(Attachment("video", "v", content), reader.library, lambda: None)


def pictures(video: Video, indices: list[int], reader: Reader) -> list[np.ndarray]:
    """Upright and in their own size: uint8 [height, width, 3] each."""
    frames = decode_frames(reader, video, np.array(indices), video.size)
    return [frame.permute(1, 2, 0).numpy() for frame in frames]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("audio", "first"), [(True, 1.5), (False, 0.0)])
def test_times_are_those_of_a_players_clock(
    name: str, audio: bool, first: float, encode: Encode, reader: Reader
) -> None:
    """It starts with whatever comes first: the sound, which starts at zero, or else the pictures."""
    content = encode(name, frames=20, fps=10, variable=True, start_offset_seconds=1.5, audio=audio, seed=4)
    timeline = opened(content, reader).timeline
    true = [first + tick / 1000 for tick in media.frame_ticks(20, fps=10, variable=True, seed=4)]
    np.testing.assert_allclose(timeline.seconds, true, atol=1e-3)
    assert timeline.rate is None


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_avi_counts_its_frames(codec: str, encode: Encode, reader: Reader) -> None:
    video = opened(encode("a.avi", codec=codec, frames=20, fps=10), reader)
    np.testing.assert_allclose(video.timeline.seconds, np.arange(20) / 10)
    assert [media.frame_number(picture) for picture in pictures(video, [0, 7, 7, 19], reader)] == [0, 7, 7, 19]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "libx265"), ("a.webm", "libvpx-vp9")])
def test_frames_are_those_that_were_asked_for(name: str, codec: str, encode: Encode, reader: Reader) -> None:
    video = opened(encode(name, codec=codec, frames=30, variable=True), reader)
    assert [media.frame_number(picture) for picture in pictures(video, [1, 2, 15, 28], reader)] == [1, 2, 15, 28]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_pictures_are_turned_clockwise_as_the_header_says(rotation: int, encode: Encode, reader: Reader) -> None:
    upright, turned = (opened(encode(rotation=degrees, frames=2), reader) for degrees in (0, rotation))
    assert upright.size == Size(64, 96)
    assert turned.size == (Size(64, 96) if rotation == 180 else Size(96, 64))
    (first,), (second,) = (pictures(video, [0], reader) for video in (upright, turned))
    np.testing.assert_array_equal(second, np.rot90(first, k=-rotation // 90))


def test_variable_rate_is_sampled_evenly_in_time(encode: Encode, reader: Reader) -> None:
    timeline = opened(encode("a.mkv", frames=60, fps=10, variable=True), reader).timeline
    times = timeline.seconds[uniform(timeline, SamplingBounds(fps=1, min_frames=8, max_frames=8))]
    even = np.linspace(timeline.seconds[0], timeline.seconds[-1], 8)
    longest_frame = np.diff(timeline.seconds).max()
    assert np.abs(times - even).max() <= longest_frame / 2 + 1e-9


@pytest.mark.parametrize("options", [{"fps": 30}, {"fps": 24}, {"fps": 29.97}])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_rounding_to_the_containers_clock_is_no_variable_rate(
    name: str, options: dict[str, Any], encode: Encode, reader: Reader
) -> None:
    timeline = opened(encode(name, frames=40, **options), reader).timeline
    assert timeline.rate is not None
    assert float(timeline.rate) == pytest.approx(options["fps"], abs=1e-3)
