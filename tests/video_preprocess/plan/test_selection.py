"""What is looked at by default: the adaptive sampler, fed by a file, a request's options and its question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.media.video import Video, open_video, read_thumbnails
from preprocess.plan.selection import Selection, select_video
from preprocess.request.options import VideoOptions, parse_video_options
from preprocess.settings import Settings
from tests.support import media

FRAMES, FPS = 1200, 24


def _go_on() -> None:
    """Nothing interrupts."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    media.make_video(folder / "video.mp4", frames=FRAMES, fps=FPS, width=64, height=48, key_frame_interval=120)
    return folder


@pytest.fixture
def library(folder: Path) -> Library:
    return Library(folder, 1 << 20)


@pytest.fixture
def video(library: Library) -> Video:
    return open_video(Attachment("video", "video.mp4", "video.mp4"), library, _go_on)


def seconds(look: Selection) -> np.ndarray:
    assert look.video is not None
    assert look.indices is not None
    return look.video.timeline.seconds[look.indices]


def test_adaptive_is_the_default_and_takes_as_many_frames_as_uniform(video: Video, settings: Settings) -> None:
    default = select_video(video, parse_video_options({}), settings)
    uniform = select_video(video, parse_video_options({"sampler": "uniform"}), settings)
    assert default.tokens == uniform.tokens
    assert seconds(default).tolist() != seconds(uniform).tolist()


def test_timestamps_are_the_true_times_of_the_frames(video: Video, settings: Settings) -> None:
    look = select_video(video, VideoOptions(max_frames=40), settings)
    assert seconds(look) == pytest.approx(np.asarray(look.indices) / FPS)
    assert look.medium.timestamps == pytest.approx(seconds(look).reshape(-1, 2).mean(axis=1))


def test_a_question_that_names_a_time_gets_frames_there(video: Video, settings: Settings) -> None:
    def near(question: str) -> int:
        times = seconds(select_video(video, VideoOptions(max_frames=40), settings, question=question))
        return int(((times >= 25) & (times <= 35)).sum())

    assert near("What happens at 0:30?") >= 20 > near("What happens?")


def test_start_and_end_bound_what_is_looked_at(video: Video, settings: Settings) -> None:
    options = VideoOptions(max_frames=40, start=10, end=20)
    times = seconds(select_video(video, options, settings, question="What happens at 0:30, and at 0:19?"))
    assert 10 - 1 / FPS < times.min() < times.max() <= 20
    assert len(times) == 20


def test_thumbnails_change_the_changes_only(video: Video, library: Library) -> None:
    closer = read_thumbnails(video, library, _go_on)
    assert closer.timeline.changes.tolist() != video.timeline.changes.tolist()
    assert replace(closer.timeline, changes=video.timeline.changes).ticks is video.timeline.ticks


def test_large_videos_get_no_thumbnails(video: Video, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.media.video.MOST_PIXELS", FRAMES * 64 * 48 - 1)
    assert read_thumbnails(video, library, _go_on) is video
