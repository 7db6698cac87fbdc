"""Bounds on what a request brings, checked before any of it is parsed, and on what all requests hold together."""

from __future__ import annotations

import threading

from preprocess.errors import InvalidArgumentError
from preprocess.media.subtitles import MAX_FILE_BYTES
from preprocess.request.request import Inputs, Limits


def check_sizes(inputs: Inputs, limits: Limits) -> None:
    """Raises InvalidArgumentError for too many attachments, too much text, or a large file of subtitles."""
    attached = len(inputs.videos) + len(inputs.video_uris) + len(inputs.images)
    if attached > limits.max_attachments:
        raise InvalidArgumentError(
            f"{attached} videos and images are attached; at most {limits.max_attachments} are accepted"
        )
    size = sum(len(text.encode(errors="surrogatepass")) for text in _texts(inputs))
    if size > limits.max_text_bytes:
        raise InvalidArgumentError(
            f"the request has {size} bytes of text, messages and options;"
            f" at most {limits.max_text_bytes} are accepted (max_text_bytes)"
        )
    for index, content in enumerate(inputs.subtitles):
        if len(content) > MAX_FILE_BYTES:
            raise InvalidArgumentError(
                f"subtitles[{index}] has {len(content)} bytes; at most {MAX_FILE_BYTES} bytes are accepted"
            )


def bytes_of(inputs: Inputs) -> int:
    """The memory that a request's inputs hold, about: attachments to the byte, texts by their characters."""
    return sum(map(len, (*inputs.videos, *inputs.images, *inputs.subtitles, *_texts(inputs))))


def _texts(inputs: Inputs) -> list[str]:
    texts = (inputs.text, inputs.messages, inputs.video_options, inputs.sampling_parameters, *inputs.video_uris)
    return [text for text in texts if text is not None]


class BytesInFlight:
    """Counts what the requests that are served hold. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Holds so many bytes more; False if there is no room for them."""
        with self._lock:
            if self._held + size > self.most:
                return False
            self._held += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size
