"""What is known of videos and what was decoded of them, by way of the library's memory, if it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import numpy.typing as npt

from preprocess.cache.disk_cache import digest
from preprocess.cache.speech import transcribed
from preprocess.media.library import Library
from preprocess.media.subtitles import Choice
from preprocess.media.video import Video
from preprocess.plan.selection import Look
from preprocess.request.messages import Attachment
from preprocess.settings import Patching
from preprocess.workers.reading import read_sound, read_video
from preprocess.workers.serialise import pack_video, unpack_video


def recall_video(
    attachment: Attachment, library: Library, *, closer: bool, subtitles: Choice, interrupt: Callable[[], None]
) -> Video:
    """What there is to know of a video before it is decoded, with a closer look if wanted; read or remembered."""
    memory = library.memory
    file = library.subtitle_file(attachment, subtitles)
    # A track in a language that is asked for is not the speech.
    transcriber = library.transcriber if subtitles is True else None
    speech = transcriber.name if transcriber else None
    key = (
        digest("video", memory.cache_salt, library.digest(attachment), closer, subtitles, file, speech)
        if memory
        else ""
    )
    content = memory.read(key) if memory else None
    if content is None:
        content = read_video(
            attachment, library, closer=closer, subtitles=subtitles, subtitle_file=file, interrupt=interrupt
        )
        video = unpack_video(content, attachment)
        if transcriber and not video.lines:
            with closing(read_sound(attachment, library, interrupt)) as pieces:
                video = video.with_lines(transcribed(pieces, video.timeline.zero_seconds, transcriber, interrupt))
            content = pack_video(video)
        if memory:
            memory.write(key, content)
    return unpack_video(content, attachment)


def recall_patches(
    look: Look, patching: Patching, library: Library, decoded: Iterator[npt.NDArray[np.uint8]]
) -> Iterator[npt.NDArray[np.uint8]]:
    """A video's temporal patches, [patches, 1536] each: those remembered, or else `decoded`, which are then kept."""
    memory = library.memory
    if memory is None or look.indices is None:
        return decoded
    content = library.digest(look.attachment)
    key = digest("patches", memory.cache_salt, content, look.indices.tobytes(), look.size, patching)
    rows = look.medium.rows * look.medium.columns * patching.merge**2
    values = 3 * patching.frames * patching.patch_pixels**2
    return memory.remember(key, (look.temporal_patches, rows, values), decoded)
