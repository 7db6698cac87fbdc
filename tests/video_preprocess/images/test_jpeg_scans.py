"""Images whose scans have no end, and the processor time that an image gets."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from preprocess.errors import InvalidArgumentError, RequestError
from preprocess.media.attachment import Attachment
from preprocess.media.size import Size
from preprocess.workers.channel import Message
from preprocess.workers.reader import Reader
from preprocess.workers.worker import Worker
from tests.support import media


def of_scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG image with its last scan over and over."""
    target = io.BytesIO()
    Image.new("L", (side, side), 100).save(target, "JPEG", progressive=True)
    content = target.getvalue()
    start = content.rindex(b"\xff\xda")
    return content[:-2] + content[start:-2] * (count - content.count(b"\xff\xda")) + content[-2:]


def test_scans_of_an_image_are_bounded(reader: Reader) -> None:
    attachment = Attachment("image", "image[0]", of_scans(100))
    assert reader.image_size(attachment) == Size(64, 64)
    (picture,) = reader.image(attachment)
    assert picture.shape == (64, 64, 3)
    for read in (reader.image_size, lambda image: list(reader.image(image))):
        with pytest.raises(RequestError) as caught:
            read(Attachment("image", "image[0]", of_scans(101)))
        assert str(caught.value) == (
            "invalid_argument: image[0] has more than 100 scans, the most accepted in a JPEG image of 64x64 pixels"
        )


def test_a_large_image_has_fewer_scans(reader: Reader) -> None:
    """Each takes time for every pixel: a hundred of the largest image took ten seconds."""
    assert reader.image_size(Attachment("image", "i", of_scans(16, 8192))).width == 8192
    with pytest.raises(InvalidArgumentError, match=r"i has more than 16 scans, the most .* image of 8192x8192 pixels"):
        reader.image_size(Attachment("image", "i", of_scans(17, 8192)))


def test_what_lies_in_segments_and_behind_an_image_is_no_scan(reader: Reader) -> None:
    """A phone's photo may have a film behind it, and thumbnails before."""
    content = of_scans(9)
    marks = b"\xff\xda" * 1000
    segment = b"\xff\xe5" + struct.pack(">H", 2 + len(marks)) + marks
    attachment = Attachment("image", "image[0]", content[:2] + segment + content[2:] + marks)
    (picture,) = reader.image(attachment)
    assert picture.shape == (64, 64, 3)


def test_an_image_gets_little_processor_time(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: dict[str, int] = {}
    run = Worker.run

    def note(worker: Worker, task: Message, interrupt: Callable[[], None]) -> Iterator[Message]:
        allowed[task.values["task"]] = task.values["cpu_seconds"]
        return run(worker, task, interrupt)

    monkeypatch.setattr(Worker, "run", note)
    image = Attachment("image", "i", media.make_image())
    reader.image_size(image)
    list(reader.image(image))
    # 67 million pixels are accepted.
    assert allowed == {"image_size": 5, "image": 5 + 7}
