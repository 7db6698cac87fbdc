"""Pictures for the model: the frames and images that were chosen, read by the workers and resized."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from preprocess.frames import undecodable
from preprocess.media import Library
from preprocess.messages import Attachment
from preprocess.reading import read_frames, read_image
from preprocess.resize import resize
from preprocess.size import Size
from preprocess.video import Video


def decode_frames(
    library: Library,
    video: Video,
    indices: npt.NDArray[np.int64],
    size: Size,
    interrupt: Callable[[], None],
) -> Iterator[torch.Tensor]:
    """The frames with the rising `indices`, in order, one for each index: uint8 [3, height, width].

    Calls `interrupt` now and then; what that raises ends the decoding. Raises InvalidArgumentError, with the time,
    where the stream does not decode.
    """
    repeats = deque(indices.tolist())
    for index, picture in read_frames(video, library, indices, interrupt):
        # Its memory is written to again: what needs no resizing is copied.
        resized = resize(picture.copy() if Size(*picture.shape[:2]) == size else picture, size)
        while repeats and repeats[0] == index:
            repeats.popleft()
            yield resized
    if repeats:
        raise undecodable(video.attachment, video.timeline, repeats[0])


def decode_image(library: Library, attachment: Attachment, size: Size, interrupt: Callable[[], None]) -> torch.Tensor:
    """uint8 [3, height, width]; raises InvalidArgumentError for an image that does not decode."""
    return resize(read_image(attachment, library, interrupt), size)
