"""Every time that is looked at is the container's own, as ffprobe tells it, to the millisecond."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from preprocess.chunks.decode import decode_frames
from preprocess.media.attachment import Attachment
from preprocess.media.size import Size
from preprocess.media.video import open_video
from preprocess.sampling.samplers import SAMPLERS, SamplingBounds
from tests.support import media, needs, readers

pytestmark = needs.program("ffprobe", "ffmpeg")

VIDEOS: dict[str, dict[str, Any]] = {
    "constant.mp4": {},
    "ntsc.mp4": {"fps": 30000 / 1001},
    "variable.mp4": {"variable": True},
    "variable.mkv": {"variable": True},
    "offset.mp4": {"start_offset_seconds": 2.345, "audio": True},
    "offset.mkv": {"start_offset_seconds": 0.5, "variable": True, "audio": True},
    "hevc.mp4": {"codec": "libx265"},
    "hevc.mkv": {"codec": "libx265", "variable": True},
    "vp9.webm": {"codec": "libvpx-vp9", "variable": True},
    "av1.mp4": {"codec": "libsvtav1"},
    "fragmented.mp4": {"unknown_duration": True},
    "counted.avi": {"codec": "mpeg4"},
    "h264.avi": {},
    "edited.mp4": {"frames": 48, "start_offset_seconds": 0.75},
}


def probed(path: Path) -> np.ndarray:
    """The shown frames' times in seconds, from the start of the presentation."""
    command = ["ffprobe", "-v", "error", "-of", "json", "-select_streams", "v:0"]
    # AVI has no presentation times, and ffprobe none for all of its frames: the k-th shown is shown at the k-th time.
    rows, time = ("packets", "dts_time") if path.suffix == ".avi" else ("frames", "best_effort_timestamp_time")
    command += ["-show_entries", f"{rows[:-1]}={time}:format=start_time", str(path)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    start = max(float(told["format"]["start_time"]), 0.0)
    return np.array([float(row[time]) - start for row in told[rows]])


@pytest.mark.parametrize("name", VIDEOS)
def test_times_are_the_containers(tmp_path: Path, name: str) -> None:
    media.make_video(tmp_path / name, **{"frames": 60, **VIDEOS[name]})
    timeline = open_video(Attachment("video", name, name), readers.reader(tmp_path).library, lambda: None).timeline
    expected = probed(tmp_path / name)
    for sampler in SAMPLERS.values():
        indices = sampler(timeline, SamplingBounds(fps=60, min_frames=1, max_frames=17))
        assert timeline.seconds[indices] == pytest.approx(expected[indices], abs=1e-3)


def test_edit_list_that_cuts_the_beginning(tmp_path: Path) -> None:
    """Trimmed without re-encoding: the frames before the cut are in the file, and not shown."""
    media.make_video(tmp_path / "whole.mp4", frames=60)
    subprocess.run(
        ["ffmpeg", "-v", "error", "-ss", "0.8", "-i", "whole.mp4", "-c", "copy", "trimmed.mp4"],
        cwd=tmp_path,
        check=True,
    )
    with av.open(str(tmp_path / "trimmed.mp4")) as container:
        assert len([packet for packet in container.demux(video=0) if packet.is_discard]) > 0
    reader, attachment = readers.reader(tmp_path), Attachment("video", "trimmed.mp4", "trimmed.mp4")
    video = open_video(attachment, reader.library, lambda: None)
    expected = probed(tmp_path / "trimmed.mp4")
    assert len(expected) < 60
    assert not video.timeline.key_frames[0]
    assert video.timeline.seconds == pytest.approx(expected, abs=1e-3)
    for indices in (np.arange(len(expected)), np.array([2]), np.array([0, 20])):
        pictures = decode_frames(reader, video, indices, Size(64, 96))
        numbers = [media.frame_number(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        assert numbers == (60 - len(expected) + indices).tolist()
