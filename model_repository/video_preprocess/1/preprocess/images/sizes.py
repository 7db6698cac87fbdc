"""How large the images of a request are, before any is decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from preprocess.errors import InvalidArgumentError
from preprocess.media.library import Library
from preprocess.media.size import Size
from preprocess.request.messages import Attachment
from preprocess.workers.reading import read_image_size


class ImageSizes:
    """Reads the header of each image once, and counts the pixels that will have to be decoded."""

    def __init__(self, library: Library, interrupt: Callable[[], None]) -> None:
        self._library = library
        self._interrupt = interrupt
        self._read: dict[bytes | str | Path, Size] = {}
        self._pixels = 0

    def read(self, attachment: Attachment) -> Size:
        """The upright size; raises InvalidArgumentError once the different images have too many pixels together."""
        if attachment.source in self._read:
            return self._read[attachment.source]
        size = read_image_size(attachment, self._library, self._interrupt)
        self._pixels += size.height * size.width
        if self._pixels > self._library.max_request_pixels:
            raise InvalidArgumentError(
                f"the images up to {attachment.name} have {self._pixels} pixels together; at most"
                f" {self._library.max_request_pixels} are accepted in a request (max_request_pixels)"
            )
        self._read[attachment.source] = size
        return size
