"""A request's reader: what it keeps between the tasks on an attachment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from preprocess.media.attachment import Attachment
from tests.support import media, readers


def test_an_upload_is_copied_into_a_file_once_until_another_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.make_video(tmp_path / "a.mp4", frames=12, audio=True)
    upload = Attachment("video", "v", (tmp_path / "a.mp4").read_bytes())
    image = Attachment("image", "i", media.make_image())
    copies: list[int] = []
    create = os.memfd_create

    def note(name: str, flags: int) -> int:
        file = create(name, flags)
        if name == "attachment":
            copies.append(file)
        return file

    monkeypatch.setattr(os, "memfd_create", note)
    reader = readers.reader(None)
    video = reader.video(upload, thumbnails=True, subtitles=False)
    assert list(reader.sound(upload))
    assert len(list(reader.frames(video, np.arange(12)))) == 12
    assert len(copies) == 1
    reader.image_size(image)
    assert list(reader.image(image))
    assert len(copies) == 2
    reader.close()
    for file in copies:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)
    assert len(list(reader.frames(video, np.arange(3)))) == 3
    reader.close()
