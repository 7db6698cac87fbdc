"""The sound of a video, as speech recognition wants it: one channel of 16,000 samples per second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import av
import numpy as np
import numpy.typing as npt

from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library

SAMPLES_PER_SECOND = 16_000

Samples = npt.NDArray[np.int16]
"""`[samples]`"""


def decode_sound(library: Library, video: Attachment, interrupt: Callable[[], None]) -> Iterator[tuple[float, Samples]]:
    """Pieces of the best audio stream, in order, and when each begins by the container's clock, in seconds.

    None if there is no audio. What does not decode is left out. Raises InvalidArgumentError for more than is accepted.
    """
    with library.open_video(video) as (container, _):
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream) or stream.codec_context is None:
            return
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLES_PER_SECOND)
        samples = 0
        for frame in chain(_frames(container, stream, interrupt), [None]):
            for resampled in resampler.resample(frame):
                samples += resampled.samples
                if samples > library.max_seconds * SAMPLES_PER_SECOND:
                    raise InvalidArgumentError(
                        f"{video.name} has sound of more than {library.max_seconds:.0f} seconds, the most accepted"
                    )
                yield float(resampled.time or 0.0), resampled.to_ndarray().reshape(-1).astype(np.int16, copy=False)


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream, interrupt: Callable[[], None]
) -> Iterator[av.AudioFrame]:
    try:
        for packet in container.demux(stream):
            interrupt()
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue
    except av.FFmpegError:
        # The container breaks off: what came before is there.
        return
