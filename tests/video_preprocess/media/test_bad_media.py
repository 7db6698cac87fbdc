"""Media that cannot be looked at, each with the message that its caller gets."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from preprocess.chunks.decode import decode_frames
from preprocess.errors import InvalidArgumentError, NotFoundError, RequestError
from preprocess.images.images import decode_image
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.media.size import Size
from preprocess.media.video import open_video
from preprocess.plan.selection import Selection, select_image
from preprocess.settings import Settings
from preprocess.workers.reader import Reader
from tests.support import media, readers

Encode = Callable[..., bytes]


def opening(content: bytes | str, reader: Reader) -> str:
    with pytest.raises(RequestError) as caught:
        open_video(Attachment("video", "video[0]", content), reader.library, lambda: None)
    return str(caught.value)


def look(image: Attachment, reader: Reader, settings: Settings) -> Selection:
    return select_image(image, reader.image_size(image), settings)


def sound_alone() -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "video[0] is empty"),
        (b"not a video " * 100, "video[0] is not a readable video"),
        (media.make_image(), "video[0] is not a readable video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", "video[0] is not a readable video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "video[0] is not a readable video"),
        (sound_alone(), "video[0] has no video stream"),
    ],
    ids=["empty", "text", "picture", "playlist", "concat", "sound"],
)
def test_what_is_no_video(content: bytes, message: str, reader: Reader) -> None:
    assert opening(content, reader).startswith(f"invalid_argument: {message}")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("a.mp4", {"movflags": "faststart"}, "its header announces 48 frames, "),
        ("a.avi", {"codec": "mpeg4"}, "its header announces 48 frames, "),
        ("a.mkv", {}, "its header announces "),
        ("a.webm", {"codec": "libvpx-vp9"}, "its header announces "),
    ],
)
def test_files_that_were_cut_off_are_read_as_far_as_they_go(
    name: str, options: dict[str, str], reason: str, encode: Encode, reader: Reader
) -> None:
    content = encode(name, frames=48, **options)
    attachment = Attachment("video", "video[0]", content[: len(content) * 7 // 10])
    video = open_video(attachment, reader.library, lambda: None)
    assert video.timeline.broken_off.startswith(reason)
    assert 10 < len(video.timeline) < 48
    indices = np.arange(len(video.timeline))
    assert len(list(decode_frames(reader, video, indices, Size(64, 96)))) == len(indices)
    whole = open_video(Attachment("video", "video[0]", content), reader.library, lambda: None)
    assert whole.timeline.broken_off == ""
    np.testing.assert_allclose(video.timeline.seconds, whole.timeline.seconds[indices], atol=0.1)


def test_mp4_without_its_index_is_none(encode: Encode, reader: Reader) -> None:
    content = encode("a.mp4", frames=48)
    assert "video[0] is not a readable video" in opening(content[: len(content) * 7 // 10], reader)


def test_live_recording_is_not_taken_for_cut_off(encode: Encode, reader: Reader) -> None:
    content = encode("a.webm", codec="libvpx-vp9", frames=20, unknown_duration=True)
    assert len(open_video(Attachment("video", "video[0]", content), reader.library, lambda: None).timeline) == 20


def test_names_do_not_matter(encode: Encode, reader: Reader) -> None:
    (reader.library.root / "clip.txt").write_bytes(encode("a.mkv", frames=5))
    assert len(open_video(Attachment("video", "v", "clip.txt"), reader.library, lambda: None).timeline) == 5


def test_all_frames_at_the_same_time(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for packet in [p for i in range(3) for p in stream.encode(_frame(i))]:
            packet.pts = packet.dts = 0
            container.mux(packet)
    assert "video[0] has a duration of zero" in opening(path.read_bytes(), reader)


def _frame(index: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(media.draw_frame(index, width=64, height=64), format="rgb24")
    frame.pts = index
    return frame


def test_vp8_frames_that_are_never_shown_do_not_count(encode: Encode, tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "hidden.webm"
    source = av.open(io.BytesIO(encode("a.webm", codec="libvpx", frames=10, fps=10)))
    assert isinstance(source, av.container.InputContainer)
    with source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size == 0:
                continue
            packet.stream = stream
            container.mux(packet)
            if packet.pts == 500:
                hidden = av.Packet(bytes([bytes(packet)[0] & ~0x10]) + bytes(packet)[1:])
                hidden.stream, hidden.pts, hidden.dts, hidden.time_base = stream, 550, 550, packet.time_base
                container.mux(hidden)
    timeline = open_video(Attachment("video", "v", path.read_bytes()), reader.library, lambda: None).timeline
    assert timeline.ticks.tolist() == list(range(0, 1000, 100))


@pytest.mark.parametrize("path", ["../outside.mp4", "link.mp4", "folder", "pipe", "none.mp4", "a\0b", "/etc/passwd"])
def test_paths_tell_nothing_about_what_lies_outside(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "outside.mp4").write_bytes(b"secret")
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    os.mkfifo(root / "pipe")
    with pytest.raises(NotFoundError, match="there is no such file below the media root"):
        open_video(Attachment("video", "v", path), Library(root, 1 << 26), lambda: None)


def test_links_that_stay_inside_are_followed(encode: Encode, reader: Reader, tmp_path: Path) -> None:
    encode("a.mp4", frames=3)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    assert len(open_video(Attachment("video", "v", "link.mp4"), reader.library, lambda: None).timeline) == 3


@pytest.mark.parametrize("url", ["http://host/a.mp4", "file:///etc/passwd", "concat:a|b", "s3://bucket/a.mp4"])
def test_urls_are_refused(url: str, reader: Reader) -> None:
    assert re.search("invalid_argument: .* is the URL .*a path below the media root is accepted", opening(url, reader))


def test_paths_without_a_media_root_are_refused() -> None:
    assert "no media root" in opening("a.mp4", readers.reader(None))


@pytest.mark.parametrize("content", [b"", b"nothing"], ids=["empty", "text"])
def test_what_is_no_image(content: bytes, reader: Reader, settings: Settings) -> None:
    with pytest.raises(InvalidArgumentError, match=r"image\[0\] "):
        look(Attachment("image", "image[0]", content), reader, settings)


def test_image_that_was_cut_off(reader: Reader) -> None:
    with pytest.raises(InvalidArgumentError, match=r"image\[0\] cannot be decoded"):
        decode_image(reader.library, Attachment("image", "image[0]", media.make_image()[:2000]))


def test_image_whose_orientation_is_damaged(reader: Reader, settings: Settings) -> None:
    image = Attachment("image", "image[0]", media.make_image()[:-200])
    with pytest.raises(InvalidArgumentError, match=r"image\[0\]: cannot be decoded: image file is truncated"):
        look(image, reader, settings)


def test_codec_that_is_not_known(encode: Encode, reader: Reader) -> None:
    content = encode().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC")
    assert "has no video stream that can be decoded" in opening(content, reader)


def test_sizes_are_bounded(encode: Encode, settings: Settings, reader: Reader) -> None:
    small = readers.reader(None, max_frame_pixels=64 * 64)
    assert "96x64 pixels; at most 4096 pixels are accepted" in opening(encode("a.mp4"), small)
    target = io.BytesIO()
    Image.new("L", (16384, 16384)).save(target, "PNG")
    with pytest.raises(InvalidArgumentError, match="16384x16384 pixels; at most 67108864"):
        look(Attachment("image", "image[0]", target.getvalue()), reader, settings)


def test_aspect_ratio_is_bounded(reader: Reader, settings: Settings) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"image\[0\]: a picture of 402x2 pixels has an aspect ratio above 200"
    ):
        look(Attachment("image", "image[0]", media.make_image(width=402, height=2)), reader, settings)


def test_a_place_that_changed_meanwhile_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe holds nobody up, and a link that leads outside is not followed."""
    root = tmp_path / "media"
    root.mkdir()
    (tmp_path / "outside.mp4").write_bytes(b"secret")
    os.mkfifo(root / "pipe.mp4")
    library = Library(root, 1 << 26)
    for place in (root / "pipe.mp4", tmp_path / "outside.mp4", Path("/dev/null")):
        monkeypatch.setattr(Library, "locate", lambda self, attachment, place=place: place)
        handles = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(NotFoundError, match="no such file"), library.open_file(Attachment("video", "v", "a.mp4")):
            pass
        assert len(list(Path("/proc/self/fd").iterdir())) == handles
