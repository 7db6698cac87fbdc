"""Videos that come as their frames, in the bodies that vLLM's clients send."""

from __future__ import annotations

import base64
import io
import itertools
from typing import Any

import av
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen3_vl_client import InvalidRequest
from qwen3_vl_client.front.media.frame_list import ONE_A_SECOND, FrameTimes, as_video
from qwen3_vl_client.front.openai.video_kwargs import (
    MediaIoKwargs,
    MmProcessorKwargs,
    VideoIoKwargs,
    frame_times,
    merged_video_options,
)
from tests.support.media import make_image

COUNT = 7


def jpeg(number: int, width: int = 96, height: int = 64) -> bytes:
    encoded = io.BytesIO()
    Image.open(io.BytesIO(make_image(width=width, height=height, seed=number))).save(encoded, "JPEG")
    return encoded.getvalue()


def listed(*frames: bytes) -> str:
    return "data:video/jpeg;base64," + ",".join(base64.b64encode(frame).decode() for frame in frames)


def claimed(width: int, height: int) -> bytes:
    """A file of a few bytes whose header claims such a size."""
    encoded = bytearray(jpeg(0))
    size = encoded.index(b"\xff\xc0") + 5
    encoded[size : size + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(encoded)


@pytest.fixture(scope="module")
def url() -> str:
    return listed(*(jpeg(number) for number in range(COUNT)))


def shown(video: bytes) -> list[tuple[float, int, int]]:
    with av.open(io.BytesIO(video)) as container:
        return [(round(frame.time or 0.0, 3), frame.width, frame.height) for frame in container.decode(video=0)]


def test_frames_keep_their_pictures_and_times(url: str) -> None:
    assert shown(as_video(url, ONE_A_SECOND, "it")) == [(float(second), 96, 64) for second in range(COUNT)]
    times = FrameTimes(rate=30.0, indices=(0, 15, 45, 300, 301, 1000, 9000))
    assert [time for time, *_ in shown(as_video(url, times, "it"))] == [0.0, 0.5, 1.5, 10.0, 10.033, 33.333, 300.0]


@pytest.mark.parametrize(
    ("frames", "times", "reason"),
    [
        ([jpeg(0), jpeg(1, width=64)], ONE_A_SECOND, "frames of 2 sizes"),
        ([jpeg(0), b"GIF89a"], ONE_A_SECOND, "a frame that is no JPEG file"),
        ([jpeg(0), b""], ONE_A_SECOND, "a frame that is no JPEG file"),
        ([jpeg(0)], FrameTimes(indices=(0, 1)), "frames_indices has 2 values"),
        ([jpeg(0), jpeg(1)], FrameTimes(indices=(4, 4)), "do not rise"),
        ([jpeg(0), jpeg(1)], FrameTimes(1e-308), "fps is 1e-308; .* 0.001 to 1000 a second"),
        ([jpeg(0), jpeg(1)], FrameTimes(1e300), "fps is 1e\\+300"),
        ([jpeg(0), jpeg(1)], FrameTimes(float("nan")), "fps is nan"),
        (
            [jpeg(0), jpeg(1)],
            FrameTimes(0.001, (0, 2**31 - 1)),
            "2147483647 of 0.001 a second, is later than 10,000,000 s",
        ),
        ([b"x"] * 65_537, ONE_A_SECOND, "has 65,537 frames; at most 65,536"),
        ([claimed(10_000, 10_000)], ONE_A_SECOND, "has 100,000,000 pixels in a frame; at most 67,108,864"),
        ([claimed(8000, 8000)] * 300, ONE_A_SECOND, "has 19,200,000,000 pixels in all frames together"),
    ],
)
def test_what_is_no_list_of_frames_is_refused(frames: list[bytes], times: FrameTimes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        as_video(listed(*frames), times, "it")


@given(st.floats(1e-3, 1e3), st.lists(st.integers(0, 10_000), min_size=1, max_size=50, unique=True))
@settings(max_examples=300, derandomize=True)
def test_times_that_are_accepted_rise_by_a_millisecond(rate: float, indices: list[int]) -> None:
    seconds = FrameTimes(rate, tuple(sorted(indices))).seconds(len(indices))
    milliseconds = [round(second * 1000) for second in (*seconds, seconds[-1] + 1 / rate)]
    assert all(before < after for before, after in itertools.pairwise(milliseconds))


def test_what_is_not_base64_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not base64"):
        as_video("data:video/jpeg;base64,AAAA,***", ONE_A_SECOND, "it")


def test_all_frames_are_shown_unless_sampling_is_asked_for() -> None:
    every = {"sampler": "uniform", "fps": 60, "max_frames": COUNT}
    assert merged_video_options(None, None, None, [4, COUNT]) == every
    assert merged_video_options(None, MmProcessorKwargs(fps=[2.0], do_sample_frames=False), None, [COUNT]) == every
    assert merged_video_options(None, MmProcessorKwargs(fps=2, do_sample_frames=True), None, [COUNT]) == {"fps": 2}
    few = MediaIoKwargs(video=VideoIoKwargs(num_frames=4))
    assert merged_video_options(few, None, None, [COUNT]) == {**every, "max_frames": 4}


def test_where_their_rate_comes_from() -> None:
    loader = MediaIoKwargs(video=VideoIoKwargs(fps=30, frames_indices=[0, 30], total_num_frames=60, duration=2.0))
    assert frame_times(loader, MmProcessorKwargs(fps=2.0)) == FrameTimes(30, (0, 30))
    assert frame_times(None, MmProcessorKwargs(fps=[2.0], do_sample_frames=False)) == FrameTimes(2.0)
    assert frame_times(None, MmProcessorKwargs(fps=2.0, do_sample_frames=True)) == ONE_A_SECOND


def ask(api: str, url: str, **body: Any) -> httpx2.Response:
    content = [{"type": "text", "text": "What is it?"}, {"type": "video_url", "video_url": {"url": url}}]
    messages = [{"role": "user", "content": content}]
    return httpx2.post(
        f"{api}/v1/chat/completions",
        json={"model": "test-model", "messages": messages, "max_tokens": 4, "temperature": 0, **body},
        headers={"authorization": "Bearer key-of-ann"},
        timeout=60,
    )


def test_the_model_sees_every_frame_at_its_time(api: str, url: str) -> None:
    """Two frames to a temporal patch of 3 × 2 tokens; a later time is written with more digits."""
    near = ask(api, url, mm_processor_kwargs={"fps": [2.0], "do_sample_frames": False}).json()["usage"]
    assert near["prompt_tokens_details"]["video_tokens"] == 4 * 3 * 2
    indices = [9000 + 30 * number for number in range(COUNT)]
    video = {"fps": 30, "frames_indices": indices, "total_num_frames": 20_000, "do_sample_frames": False}
    far = ask(api, url, media_io_kwargs={"video": video}).json()["usage"]
    assert far["prompt_tokens_details"]["video_tokens"] == 4 * 3 * 2
    assert far["prompt_tokens"] == near["prompt_tokens"] + 2 * 4, "300.5 has two digits more than 0.2"


def test_a_rate_of_almost_nothing_is_refused(api: str, url: str) -> None:
    video = {"fps": 1e-308, "frames_indices": list(range(COUNT)), "do_sample_frames": False}
    refused = ask(api, url, media_io_kwargs={"video": video})
    assert refused.status_code == 400, refused.text
    assert "fps is 1e-308" in refused.json()["error"]["message"]


def test_a_refusal_names_the_part(api: str) -> None:
    refused = ask(api, listed(b"nothing"))
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages[0].content[1].video_url"
