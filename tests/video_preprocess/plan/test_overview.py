"""The request that only asks what would be looked at: one response, without stage 3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from preprocess.plan.overview import CHANGE_BINS
from preprocess.request.request import Inputs
from preprocess.service import Service
from tests.support.recipient import eventually


class Asker:
    """Takes what comes and, unlike stage 3, opens no pipe."""

    def __init__(self) -> None:
        self.headers: list[dict[str, Any]] = []
        self.error: str | None = None
        self.ended = False

    def send(self, header: str, chunk: Any) -> None:
        self.headers.append(json.loads(header))

    def fail(self, message: str) -> None:
        self.error, self.ended = message, True

    def close(self) -> None:
        self.ended = True


def look(service: Service, **inputs: Any) -> Asker:
    asker = Asker()
    service.submit(Inputs(look=True, **inputs), asker)
    eventually(lambda: asker.ended)
    return asker


@pytest.fixture
def scenes(tmp_path: Path) -> bytes:
    """Three still pictures of two seconds each, at 10 frames a second."""
    path = tmp_path / "scenes.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(60):
            rng = np.random.default_rng(index // 20)
            picture = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_look_tells_plan_cuts_and_changes(
    start_service: Callable[..., Service], parameters: Any, scenes: bytes
) -> None:
    asker = look(start_service(), text="?", videos=[scenes], video_options='{"fps": 1, "start": 1, "end": 5}')
    (header,) = asker.headers
    told = header["look"]
    (video,) = told["media"]
    assert video["kind"] == "video"
    assert 1 <= video["timestamps"][0] < video["timestamps"][-1] <= 5
    assert (video["seconds"], video["cuts"]) == (6.0, [2.0, 4.0])
    changes = np.array(video["changes"])
    assert len(changes) == CHANGE_BINS
    assert np.flatnonzero(changes == 1).tolist() == [int(2 / 6 * CHANGE_BINS), int(4 / 6 * CHANGE_BINS)]
    assert ((changes >= 0) & (changes <= 1)).all()
    assert told["context_length"] > told["prompt_tokens"] == told["wanted_tokens"] > told["video_tokens"] > 0
    # No pipe.
    assert [path.name for path in parameters.credits_directory.iterdir()] == ["key"]


def test_look_tells_where_nothing_is_said(start_service: Callable[..., Service], scenes: bytes) -> None:
    lines = b"1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\n00:00:02,500 --> 00:00:03,000\nTwo.\n"
    service = start_service()
    told = look(service, text="?", videos=[scenes], subtitles=[lines]).headers[0]["look"]["media"][0]
    assert told["pauses"] == [[0.0, 1.0], [3.0, 6.0]]
    assert look(service, text="?", videos=[scenes]).headers[0]["look"]["media"][0]["pauses"] == []


def test_look_tells_what_a_short_context_leaves_out(start_service: Callable[..., Service], scenes: bytes) -> None:
    service = start_service()
    whole = look(service, text="?", videos=[scenes]).headers[0]["look"]
    short = look(service, text="?", videos=[scenes], video_options='{"context_length": 80}').headers[0]["look"]
    assert short["prompt_tokens"] < 80 <= short["wanted_tokens"] == whole["wanted_tokens"]


def test_look_at_what_is_no_video_is_an_error(start_service: Callable[..., Service]) -> None:
    asker = look(start_service(), text="?", videos=[b"no video"])
    assert asker.headers == []
    assert asker.error is not None
    assert asker.error.startswith("invalid_argument: video[0] is not a readable video")
