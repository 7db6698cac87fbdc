"""Pictures for the model: the frames and images that were chosen, read by the workers and resized."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from preprocess.media.attachment import Attachment
from preprocess.media.frames import Picture, undecodable
from preprocess.media.size import Size
from preprocess.media.video import Video
from preprocess.plan.resize import resize
from preprocess.workers.reader import Reader


def decode_frames(reader: Reader, video: Video, indices: npt.NDArray[np.int64], size: Size) -> Iterator[torch.Tensor]:
    """The frames with the rising `indices`, in order, one for each index: uint8 [3, height, width].

    Raises InvalidArgumentError, with the time, where the stream does not decode.
    """
    repeats = deque(indices.tolist())
    for index, picture in reader.frames(video, indices):
        resized = _resized(picture, size)
        while repeats and repeats[0] == index:
            repeats.popleft()
            yield resized
    if repeats:
        raise undecodable(video.attachment, video.timeline, repeats[0])


def _resized(picture: Picture, size: Size) -> torch.Tensor:
    """A picture that needs no resizing is copied: its memory is written to again."""
    return resize(picture.copy() if Size(*picture.shape[:2]) == size else picture, size)


class Images:
    """The images that a request shows, resized: each decoded once, however often it is shown. Used by one thread."""

    def __init__(self, reader: Reader, shown: Iterable[tuple[Attachment, Size]]) -> None:
        self._reader = reader
        self._left = Counter(_same(attachment, size) for attachment, size in shown)
        self._kept: dict[_Same, torch.Tensor] = {}

    def take(self, attachment: Attachment, size: Size) -> torch.Tensor:
        """uint8 [3, height, width]; raises InvalidArgumentError for an image that does not decode."""
        same = _same(attachment, size)
        resized = self._kept.pop(same, None)
        if resized is None:
            # One alone, which is another's memory as long as it is read.
            for picture in self._reader.image(attachment):
                resized = _resized(picture, size)
            assert resized is not None
        self._left[same] -= 1
        if self._left[same] > 0:
            self._kept[same] = resized
        return resized


_Same = tuple[bytes | str | Path, Size]


def _same(attachment: Attachment, size: Size) -> _Same:
    return attachment.source, size
