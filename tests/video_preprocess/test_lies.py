"""Files that say more than they have: tables that name the same bytes again and again, scans without end."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from preprocess.cache.cached import recall_video
from preprocess.errors import InvalidArgumentError, RequestError
from preprocess.media import video as video_module
from preprocess.media.library import Library
from preprocess.media.size import Size
from preprocess.media.subtitles import Line
from preprocess.media.video import open_video
from preprocess.request.messages import Attachment
from preprocess.workers import reading
from preprocess.workers.channel import Message
from preprocess.workers.pool import Worker
from tests.support import media

SIDE = 32
EACH = 20
"""Frames of a chunk."""


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, flags: int, *contents: bytes) -> bytes:
    return box(kind, struct.pack(">I", flags), *contents)


def track(number: int, handler: bytes, entry: bytes, sample_bytes: int, count: int, offset: int, ticks: int) -> bytes:
    """`count` samples of video or text, every chunk of them at the same place."""
    each = min(count, EACH) if handler == b"vide" else 1
    chunks = count // each
    tables = box(
        b"stbl",
        full_box(b"stsd", 0, struct.pack(">I", 1), entry),
        full_box(b"stts", 0, struct.pack(">III", 1, count, ticks)),
        full_box(b"stsc", 0, struct.pack(">IIII", 1, 1, each, 1)),
        full_box(b"stsz", 0, struct.pack(">II", sample_bytes, count)),
        full_box(b"stco", 0, struct.pack(">I", chunks), struct.pack(">I", offset) * chunks),
    )
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    head = struct.pack(">IIIII", 0, 0, number, 0, count * ticks) + bytes(16) + matrix
    data = box(b"dinf", full_box(b"dref", 0, struct.pack(">I", 1), full_box(b"url ", 1)))
    media_head = full_box(b"vmhd", 1, bytes(8)) if handler == b"vide" else full_box(b"nmhd", 0)
    return box(
        b"trak",
        full_box(b"tkhd", 3, head, struct.pack(">II", SIDE << 16, SIDE << 16)),
        box(
            b"mdia",
            full_box(b"mdhd", 0, struct.pack(">IIIIHH", 0, 0, 1000, count * ticks, 0x55C4, 0)),
            full_box(b"hdlr", 0, bytes(4), handler, bytes(12), b"x\0"),
            box(b"minf", media_head, data, tables),
        ),
    )


def repeating_mp4(frame: bytes, count: int, *, words: bytes = b"", lines: int = 0) -> bytes:
    """`count` frames of 32x32 uncompressed pixels, and `lines` of text. 20 frames are there, and `words` once."""
    film = frame * min(count, EACH)
    start = box(b"ftyp", b"isom\0\0\2\0isomiso2")
    place = len(start) + 8
    size = struct.pack(">HHIII", SIDE, SIDE, 0x480000, 0x480000, 0)
    picture = box(b"raw ", bytes(6), b"\0\1", bytes(16), size, b"\0\1", bytes(32), b"\0\x18\xff\xff")
    tracks = track(1, b"vide", picture, len(frame), count, place, 1 if count > lines else lines * 10)
    if words:
        text = box(b"tx3g", bytes(6), b"\0\1", bytes(30), box(b"ftab", b"\0\1\0\1\5Serif"))
        tracks += track(2, b"sbtl", text, len(words), lines, place + len(film), 10)
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    movie = struct.pack(">IIII", 0, 0, 1000, 1000) + b"\0\1\0\0\1\0" + bytes(10) + matrix + bytes(24)
    return start + box(b"mdat", film, words) + box(b"moov", full_box(b"mvhd", 0, movie, struct.pack(">I", 3)), tracks)


def opening(content: bytes, library: Library) -> str:
    with pytest.raises(RequestError) as caught:
        recall_video(Attachment("video", "v", content), library, closer=False, subtitles=True, interrupt=lambda: None)
    return str(caught.value)


@pytest.mark.parametrize("frame", [bytes(32 * 32 * 3), b"x"], ids=["whole", "one_byte"])
def test_tables_that_name_the_same_bytes_again_and_again_are_refused(library: Library, frame: bytes) -> None:
    attack = repeating_mp4(frame, 1_000_000)
    assert len(attack) < 300_000
    most = 4 * len(attack) + (1 << 20)
    assert re.fullmatch(
        rf"invalid_argument: v has {len(attack)} bytes, and its tables name \d+ bytes of packets or more;"
        rf" at most {most} are accepted, 4 times its size and 1048576",
        opening(attack, library),
    )


def test_a_file_that_names_its_bytes_a_few_times_is_read(library: Library) -> None:
    content = repeating_mp4(bytes(32 * 32 * 3), 200)
    attachment = Attachment("video", "v", content)
    video = recall_video(attachment, library, closer=False, subtitles=True, interrupt=lambda: None)
    assert len(video.timeline) == 200


def test_lines_that_are_all_the_same_bytes_are_refused(library: Library) -> None:
    line = struct.pack(">H", 60_000) + b"A" * 60_000
    attack = repeating_mp4(bytes(32 * 32 * 3), 2, words=line, lines=20_000)
    assert "bytes of packets or more; at most" in opening(attack, library)


@pytest.mark.parametrize(("bound", "value", "left"), [("MAX_TRACK_PACKETS", 3, 3), ("MAX_FILE_BYTES", 100, 2)])
def test_packets_of_text_are_bounded(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, left: int
) -> None:
    lines = [Line(float(n), n + 0.5, f"a line {n}") for n in range(6)]
    media.make_video(tmp_path / "a.mkv", fps=5, frames=40, subtitles=[("subrip", "eng", lines)])
    monkeypatch.setattr(video_module, bound, value)
    opened = open_video(Attachment("video", "v", "a.mkv"), library, lambda: None, subtitles=True)
    assert len(opened.lines) == left


def of_scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG image with its last scan over and over."""
    target = io.BytesIO()
    Image.new("L", (side, side), 100).save(target, "JPEG", progressive=True)
    content = target.getvalue()
    start = content.rindex(b"\xff\xda")
    return content[:-2] + content[start:-2] * (count - content.count(b"\xff\xda")) + content[-2:]


def test_scans_of_an_image_are_bounded(library: Library) -> None:
    attachment = Attachment("image", "image[0]", of_scans(100))
    assert reading.read_image_size(attachment, library, lambda: None) == Size(64, 64)
    (picture,) = reading.read_image(attachment, library, lambda: None)
    assert picture.shape == (64, 64, 3)
    for read in (reading.read_image_size, lambda *image: list(reading.read_image(*image))):
        with pytest.raises(RequestError) as caught:
            read(Attachment("image", "image[0]", of_scans(101)), library, lambda: None)
        assert str(caught.value) == (
            "invalid_argument: image[0] has more than 100 scans, the most accepted in a JPEG image of 64x64 pixels"
        )


def test_a_large_image_has_fewer_scans(library: Library) -> None:
    """Each takes time for every pixel: a hundred of the largest image took ten seconds."""
    assert reading.read_image_size(Attachment("image", "i", of_scans(16, 8192)), library, lambda: None).width == 8192
    with pytest.raises(InvalidArgumentError, match=r"i has more than 16 scans, the most .* image of 8192x8192 pixels"):
        reading.read_image_size(Attachment("image", "i", of_scans(17, 8192)), library, lambda: None)


def test_what_lies_in_segments_and_behind_an_image_is_no_scan(library: Library) -> None:
    """A phone's photo may have a film behind it, and thumbnails before."""
    content = of_scans(9)
    marks = b"\xff\xda" * 1000
    segment = b"\xff\xe5" + struct.pack(">H", 2 + len(marks)) + marks
    attachment = Attachment("image", "image[0]", content[:2] + segment + content[2:] + marks)
    (picture,) = reading.read_image(attachment, library, lambda: None)
    assert picture.shape == (64, 64, 3)


def test_an_image_gets_little_processor_time(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: dict[str, int] = {}
    run = Worker.run

    def note(worker: Worker, task: Message, interrupt: Callable[[], None]) -> Iterator[Message]:
        allowed[task.values["task"]] = task.values["cpu_seconds"]
        return run(worker, task, interrupt)

    monkeypatch.setattr(Worker, "run", note)
    image = Attachment("image", "i", media.make_image())
    reading.read_image_size(image, library, lambda: None)
    list(reading.read_image(image, library, lambda: None))
    # 67 million pixels are accepted.
    assert allowed == {"image_size": 5, "image": 5 + 7}
