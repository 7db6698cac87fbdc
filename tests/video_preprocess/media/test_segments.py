"""Decoding by plan gives the very frames that decoding everything gives, whatever the codec and the container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import preprocess.media.segments
from preprocess.chunks.decode import decode_frames
from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Attachment
from preprocess.media.key_frames import decode_distances, decoded_late, entry_points
from preprocess.media.segments import decode_segment, segments_of
from preprocess.media.size import Size
from preprocess.media.video import Video, open_video
from preprocess.plan.resize import resize
from preprocess.workers.reader import Reader
from tests.support import media, readers

SIZE = Size(64, 96)
VIDEOS: list[dict[str, Any]] = [
    {"name": "h264.mp4"},
    {"name": "h264.mkv", "variable": True},
    {"name": "offset.mp4", "start_offset_seconds": 1.5, "audio": True},
    {"name": "turned.mov", "rotation": 90},
    {"name": "fragmented.mp4", "unknown_duration": True},
    {"name": "live.mkv", "unknown_duration": True},
    {"name": "hevc.mp4", "codec": "libx265"},
    {"name": "vp9.webm", "codec": "libvpx-vp9"},
    {"name": "vp8.webm", "codec": "libvpx"},
    {"name": "av1.mp4", "codec": "libsvtav1"},
    {"name": "mpeg4.mp4", "codec": "mpeg4"},
    {"name": "mpeg4.avi", "codec": "mpeg4"},
    {"name": "all-intra.mp4", "key_frame_interval": 1},
    {"name": "one-key.mp4", "key_frame_interval": 250},
]


def _go_on() -> None:
    """Nothing interrupts."""


def opened(folder: Path, name: str, **options: Any) -> tuple[Reader, Attachment, Video]:
    media.make_video(folder / name, **{"frames": 60, **options})
    reader = readers.reader(folder)
    attachment = Attachment("video", name, name)
    return reader, attachment, open_video(attachment, reader.library, _go_on)


def every_frame(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            resize(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)), SIZE).numpy()
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("options", VIDEOS, ids=lambda options: options["name"])
def test_the_same_frames_as_decoding_everything(tmp_path: Path, options: dict[str, Any]) -> None:
    reader, attachment, video = opened(tmp_path, **options)
    expected = every_frame(tmp_path / attachment.name)
    assert len(expected) == len(video.timeline) == 60
    few = np.array([0, 11, 13, 24, 25, 47, 59])
    many = np.sort(np.random.default_rng(0).choice(60, 40, replace=False))
    for indices in (few, many, np.array([30]), np.array([7, 7, 58, 58, 58]), np.arange(60)):
        pictures = list(decode_frames(reader, video, indices, SIZE))
        assert len(pictures) == len(indices)
        for index, picture in zip(indices, pictures, strict=True):
            np.testing.assert_array_equal(picture.numpy(), expected[index], err_msg=f"frame {index}")


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_open_groups(tmp_path: Path, codec: str) -> None:
    """Pictures shown before a key frame may refer to the group before it."""
    path = tmp_path / "open.mp4"
    options = {
        "libx264": {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3"},
        "libx265": {"x265-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3:log-level=none:pools=1"},
    }[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(60):
            picture = media.draw_frame(index, width=96, height=64)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    reader, attachment = readers.reader(tmp_path), Attachment("video", "open.mp4", "open.mp4")
    video = open_video(attachment, reader.library, _go_on)
    expected = every_frame(path)
    for index in range(60):
        (picture,) = decode_frames(reader, video, np.array([index]), SIZE)
        np.testing.assert_array_equal(picture.numpy(), expected[index], err_msg=f"frame {index}")


def test_only_what_leads_to_the_frames_is_decoded(tmp_path: Path) -> None:
    reader, attachment, video = opened(tmp_path, "long.mp4", frames=600, key_frame_interval=60)
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1

    (segment,) = segments_of(video.timeline, np.array([302, 305]))
    with reader.library.open_video(attachment) as (container, stream):
        frames = decode_segment(container, stream, video.timeline, segment, interrupt)
        assert [index for index, _ in frames] == [302, 305]
    distances = decode_distances(video.timeline.key_frames, video.timeline.decode_ranks)
    assert calls == distances[[302, 305]].max() + 1


def test_a_frame_that_does_not_come_is_tried_from_further_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, attachment, video = opened(tmp_path, "video.mp4")
    roll = preprocess.media.segments._roll
    tried: list[int] = []

    def lossy(*arguments: Any) -> Iterator[tuple[int, av.VideoFrame]]:
        entry = arguments[3]
        tried.append(entry)
        for tick, frame in roll(*arguments):
            if entry != 24 or tick != video.timeline.ticks[26]:
                yield tick, frame

    monkeypatch.setattr(preprocess.media.segments, "_roll", lossy)
    (segment,) = segments_of(video.timeline, np.array([25, 26, 27]))
    with reader.library.open_video(attachment) as (container, stream):
        decoded = [
            (index, media.frame_number(frame.to_ndarray(format="rgb24")))
            for index, frame in decode_segment(container, stream, video.timeline, segment, _go_on)
        ]
    assert decoded == [(25, 25), (26, 26), (27, 27)]
    assert tried == [24, 12]


def test_an_interrupt_ends_the_decoding(tmp_path: Path) -> None:
    _, _, video = opened(tmp_path, "video.mp4")

    def interrupt() -> None:
        raise InterruptedError

    for indices in (np.array([0, 30]), np.arange(60)):
        with pytest.raises(InterruptedError):
            list(decode_frames(readers.reader(tmp_path, interrupt=interrupt), video, indices, SIZE))


def test_leaving_early_is_clean(tmp_path: Path) -> None:
    reader, _, video = opened(tmp_path, "video.mp4", key_frame_interval=2)
    pictures = decode_frames(reader, video, np.arange(0, 60, 2), SIZE)
    next(pictures)
    pictures.close()  # type: ignore[attr-defined]


def test_damage_is_named_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    media.make_video(path, frames=60)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        hole = next(packet for packet in packets if packet.is_keyframe and packet.pts)
        start, size = hole.pos, hole.size
    content = bytearray(path.read_bytes())
    content[start + 5 : start + size] = b"\x00" * (size - 5)
    path.write_bytes(content)
    reader, attachment = readers.reader(tmp_path), Attachment("video", "broken.mp4", "broken.mp4")
    video = open_video(attachment, reader.library, _go_on)
    with pytest.raises(InvalidArgumentError, match=r"broken\.mp4 cannot be decoded at 0\.5\d* seconds"):
        list(decode_frames(reader, video, np.array([0, 12, 24]), SIZE))


def test_entry_points_and_order() -> None:
    keys = np.array([1, 0, 0, 0, 1, 0, 0], bool)
    # Frames 2 and 3 are leading pictures of the key frame 4: decoded after it, reached from frame 0.
    ranks = np.array([0, 1, 3, 4, 2, 6, 5])
    assert entry_points(keys).tolist() == [0, 0, 0, 0, 4, 4, 4]
    assert decode_distances(keys, ranks).tolist() == [0, 1, 3, 4, 0, 4, 3]
    assert decoded_late(ranks).tolist() == [False, False, True, True, False, True, False]


def test_segments_hold_each_frame_once(tmp_path: Path) -> None:
    _, _, video = opened(tmp_path, "video.mp4")
    plan = segments_of(video.timeline, np.array([1, 1, 5, 12, 40, 40, 41]))
    assert [(segment.entry, segment.frames) for segment in plan] == [(0, (1, 5)), (12, (12,)), (36, (40, 41))]
