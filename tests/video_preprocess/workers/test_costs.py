"""Small requests that ask for much work: it is done once where it is the same, and refused where it is too much."""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from preprocess.errors import InvalidArgumentError, RequestError
from preprocess.media import edit_lists
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.media.subtitles import MAX_ALL_CHARACTERS, MAX_LINES, Line, tidy
from preprocess.plan.prompt import PromptWriter
from preprocess.request.messages import MAX_PARTS
from preprocess.request.request import Inputs
from preprocess.service import Service
from preprocess.workers.pool import Workers
from preprocess.workers.reader import Reader
from preprocess.workers.worker import WorkerLimits
from tests.support import media, readers
from tests.support.recipient import Recipient

StartService = Callable[..., Service]
MakeRecipient = Callable[..., Recipient]
Encode = Callable[..., bytes]


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the workers were asked for what."""
    counted: Counter[str] = Counter()
    asked = Reader._asked

    def count(reader: Reader, task: dict[str, Any], *arguments: Any) -> AbstractContextManager[Any]:
        counted[task["task"]] += 1
        return asked(reader, task, *arguments)

    monkeypatch.setattr(Reader, "_asked", count)
    return counted


def picture(shade: int, side: int = 8192) -> bytes:
    """67 million pixels of one colour in a few hundred kB."""
    target = io.BytesIO()
    Image.new("L", (side, side), shade).save(target, "PNG", compress_level=1)
    return target.getvalue()


def test_equal_images_are_decoded_once(
    start_service: StartService, recipient: MakeRecipient, tasks: Counter[str]
) -> None:
    first, second = media.make_image(seed=1), media.make_image(seed=2)
    sent = recipient()
    start_service().submit(Inputs(text="?", images=[first, second, *[first] * 6]), sent)
    assert sent.wait().error is None
    assert tasks == {"image_size": 2, "image": 2}
    shown = [chunk.patches for _, chunk in sent.chunks[2:]]
    assert len(shown) == 8
    for patches in shown[2:]:
        np.testing.assert_array_equal(patches, shown[0])
    assert not np.array_equal(shown[1], shown[0])


def test_the_pixels_of_different_images_are_bounded_before_any_is_decoded(
    start_service: StartService, recipient: MakeRecipient, tasks: Counter[str]
) -> None:
    service = start_service(max_request_pixels=2 << 26)
    sent = recipient()
    service.submit(Inputs(text="?", images=[picture(shade) for shade in (1, 2, 1, 3)]), sent)
    assert sent.wait().error == (
        "invalid_argument: the images up to image[3] have 201326592 pixels together; at most 134217728 are accepted in"
        " a request (max_request_pixels)"
    )
    assert tasks == {"image_size": 3}


@pytest.mark.parametrize("large_box", [False, True])
def test_an_edit_list_without_end_is_refused_before_it_is_followed(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, large_box: bool
) -> None:
    sent = recipient()
    attack = media.with_edits(encode(), [(10, 0)] * 100_000, large_box=large_box)
    start_service().submit(Inputs(text="?", videos=[attack]), sent)
    assert sent.wait().error == (
        "invalid_argument: video[0] has an edit list of 100000 entries; at most 4096 are accepted"
    )


def test_edits_are_followed(encode: Encode, reader: Reader) -> None:
    edited = media.with_edits(encode(frames=24, fps=24), [(500, 1024), (250, 1024)])
    attachment = Attachment("video", "v", edited)
    video = reader.video(attachment, thumbnails=False, subtitles=False)
    assert len(video.timeline) == 12 + 6


def test_a_list_is_found_across_pieces(tmp_path: Path) -> None:
    """The index is read piece by piece, and the name of a box may lie across two."""
    entries = media._mp4_box(b"elst", bytes(8 + 12 * 5000))
    for before in range((1 << 20) - 20, (1 << 20) + 4):
        path = tmp_path / "a.mp4"
        path.write_bytes(media._mp4_box(b"ftyp", b"") + media._mp4_box(b"moov", bytes(before) + entries))
        with path.open("rb") as file:
            assert edit_lists.excess(file.fileno()) == "an edit list of 5000 entries; at most 4096 are accepted"


@pytest.mark.parametrize("size", [0, 7, 8, 100, 2**63, 2**64 - 1])
def test_boxes_that_lie_about_their_length_are_passed_over(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.mp4"
    for kind in (b"free", b"moov"):
        path.write_bytes(struct.pack(">I4sQ", 1, kind, size) + bytes(16) + struct.pack(">I4sQ", 1, b"elst", size))
        with path.open("rb") as file:
            assert edit_lists.excess(file.fileno()) is None


ASS = "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\n\n[Events]\n"


def subtitle_file(lines: int) -> bytes:
    def clock(seconds: int) -> str:
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    return (ASS + "".join(f"Dialogue: 0,{clock(n)}.00,{clock(n)}.90,,,,,,,line {n}\n" for n in range(lines))).encode()


def still_film(path: Path, frames: int) -> bytes:
    """One picture in Full HD again and again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((1620, 1920), np.uint8), format="yuv420p")
        for index in range(frames):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_a_small_video_gets_little_processor_time(tmp_path: Path) -> None:
    """Thumbnails of as many frames, and as many lines of subtitles, as are accepted take seconds."""
    video = Attachment("video", "v", still_film(tmp_path / "a.mp4", 600), subtitle_file(120_000))
    workers = Workers(1, WorkerLimits(task_cpu_seconds=1))
    try:
        with pytest.raises(RequestError) as caught:
            Reader(Library(tmp_path, 1 << 26), workers, readers.go_on).video(video, thumbnails=True, subtitles=True)
    finally:
        workers.shut_down()
    assert str(caught.value) == (
        "invalid_argument: v takes more than 1 s of processor time to read,"
        " the most accepted for a file of its size and as many pictures"
    )


def test_edits_that_show_the_same_again_and_again_are_refused(encode: Encode, reader: Reader) -> None:
    """As many edits as are accepted, each of all frames: 200 kB make an index of ten million frames."""
    attack = media.with_edits(encode(frames=2500, key_frame_interval=9999, width=32, height=32), [(1, 10**6)] * 4096)
    with pytest.raises(InvalidArgumentError, match=f"v has {len(attack)} bytes, and its tables name .* at most "):
        reader.video(Attachment("video", "v", attack), thumbnails=False, subtitles=False)


def test_no_more_lines_are_tokenized_than_may_fit(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    count_tokens = PromptWriter.count_tokens

    def count(writer: PromptWriter, texts: list[str]) -> list[int]:
        counts = count_tokens(writer, texts)
        counted.append(sum(counts))
        return counts

    monkeypatch.setattr(PromptWriter, "count_tokens", count)
    content = subtitle_file(60_000)
    sent = recipient()
    inputs = Inputs(
        text="?",
        videos=[encode(fps=0.001, frames=90)],
        subtitles=[content],
        video_options='{"context_length": 8192}',
    )
    start_service(max_video_seconds=1e6).submit(inputs, sent)
    assert sent.wait().error is None
    told = sent.chunks[1][0]["plan"]["media"][0]["lines"]
    assert told["shown"] > 20
    assert told["shown"] + told["left_out"] == MAX_LINES
    assert sum(counted) < 3 * 8192


def test_the_characters_of_all_lines_are_bounded() -> None:
    lines = tidy(Line(n, n + 0.5, f"{n:05}" + "x" * 395) for n in range(40_000))
    assert len(lines) == MAX_ALL_CHARACTERS // 400


@pytest.mark.parametrize("messages", [1, MAX_PARTS - 1])
def test_messages_and_their_parts_are_bounded(
    start_service: StartService, recipient: MakeRecipient, messages: int
) -> None:
    parts = MAX_PARTS - messages
    conversation = [{"role": "user", "content": [{"type": "text", "text": "?"}] * parts}]
    conversation += [{"role": "assistant", "content": "!"}] * (messages - 1)
    sent = recipient()
    service = start_service()
    service.submit(Inputs(messages=json.dumps(conversation)), sent)
    assert sent.wait().error is None
    conversation[0]["content"] *= 2
    refused = recipient()
    service.submit(Inputs(messages=json.dumps(conversation)), refused)
    assert refused.wait().error == (
        f"invalid_argument: messages has {MAX_PARTS + parts} messages and parts of messages;"
        f" at most {MAX_PARTS} are accepted"
    )
