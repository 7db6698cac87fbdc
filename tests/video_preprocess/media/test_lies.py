"""Files that say more than they have: tables that name the same bytes again and again."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from preprocess.errors import RequestError
from preprocess.media import video as video_module
from preprocess.media.attachment import Attachment
from preprocess.media.subtitles import Line
from preprocess.media.video import open_video
from preprocess.workers.reader import Reader
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


def opening(content: bytes, reader: Reader) -> str:
    with pytest.raises(RequestError) as caught:
        reader.video(Attachment("video", "v", content), thumbnails=False, subtitles=True)
    return str(caught.value)


@pytest.mark.parametrize("frame", [bytes(32 * 32 * 3), b"x"], ids=["whole", "one_byte"])
def test_tables_that_name_the_same_bytes_again_and_again_are_refused(reader: Reader, frame: bytes) -> None:
    attack = repeating_mp4(frame, 1_000_000)
    assert len(attack) < 300_000
    most = 4 * len(attack) + (1 << 20)
    assert re.fullmatch(
        rf"invalid_argument: v has {len(attack)} bytes, and its tables name \d+ bytes of packets or more;"
        rf" at most {most} are accepted, 4 times its size and 1048576",
        opening(attack, reader),
    )


def test_a_file_that_names_its_bytes_a_few_times_is_read(reader: Reader) -> None:
    content = repeating_mp4(bytes(32 * 32 * 3), 200)
    attachment = Attachment("video", "v", content)
    video = reader.video(attachment, thumbnails=False, subtitles=True)
    assert len(video.timeline) == 200


def test_lines_that_are_all_the_same_bytes_are_refused(reader: Reader) -> None:
    line = struct.pack(">H", 60_000) + b"A" * 60_000
    attack = repeating_mp4(bytes(32 * 32 * 3), 2, words=line, lines=20_000)
    assert "bytes of packets or more; at most" in opening(attack, reader)


@pytest.mark.parametrize(("bound", "value", "left"), [("MAX_TRACK_PACKETS", 3, 3), ("MAX_FILE_BYTES", 100, 2)])
def test_packets_of_text_are_bounded(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, left: int
) -> None:
    lines = [Line(float(n), n + 0.5, f"a line {n}") for n in range(6)]
    media.make_video(tmp_path / "a.mkv", fps=5, frames=40, subtitles=[("subrip", "eng", lines)])
    monkeypatch.setattr(video_module, bound, value)
    opened = open_video(Attachment("video", "v", "a.mkv"), reader.library, lambda: None, subtitles=True)
    assert len(opened.lines) == left
