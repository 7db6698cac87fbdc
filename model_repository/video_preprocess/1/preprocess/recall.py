"""Opens, looks at and decodes videos by way of the library's memory, if it has one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from preprocess.look import Look, Video, look_closer, open_video
from preprocess.media import Library
from preprocess.memory import digest
from preprocess.messages import Attachment
from preprocess.resize import Size
from preprocess.settings import Patching
from preprocess.subtitles import Choice, Line, read_subtitles
from preprocess.timeline import Timeline

_ARRAYS = ("ticks", "key_frames", "packet_bytes", "decode_ranks", "changes")


def recall_video(
    attachment: Attachment, library: Library, *, closer: bool, subtitles: Choice, interrupt: Callable[[], None]
) -> Video:
    """`open_video`, `look_closer` if `closer`, and the lines of the subtitle file, or what is remembered of them."""
    memory = library.memory
    file = library.subtitle_file(attachment, subtitles)
    key = digest("video", library.digest(attachment), closer, subtitles, file) if memory else ""
    if memory and (content := memory.read(key)) is not None:
        return unpack_video(content, attachment)
    video = open_video(attachment, library, interrupt, subtitles=subtitles if file is None else False)
    if file is not None:
        video = replace(video, lines=read_subtitles(file, f"the subtitle file of {attachment.name}"))
    if closer:
        video = look_closer(video, library, interrupt)
    if memory:
        memory.write(key, pack_video(video))
    return video


def recall_patches(
    look: Look, patching: Patching, library: Library, decoded: Iterator[npt.NDArray[np.uint8]]
) -> Iterator[npt.NDArray[np.uint8]]:
    """A video's temporal patches, [patches, 1536] each: those remembered, or else `decoded`, which are then kept."""
    if library.memory is None or look.indices is None:
        return decoded
    key = digest("patches", library.digest(look.attachment), look.indices.tobytes(), look.size, patching)
    rows = look.medium.rows * look.medium.columns * patching.merge**2
    values = 3 * patching.frames * patching.patch_pixels**2
    return library.memory.remember(key, (look.temporal_patches, rows, values), decoded)


def pack_video(video: Video) -> bytes:
    timeline = video.timeline
    rate = timeline.rate or Fraction(0)
    numbers = (
        *(timeline.start_tick, *timeline.time_base.as_integer_ratio(), *rate.as_integer_ratio()),
        *(timeline.last_frame_ticks, timeline.counted, video.size.height, video.size.width),
    )
    content = io.BytesIO()
    arrays = {name: getattr(timeline, name) for name in _ARRAYS}
    lines = np.frombuffer(json.dumps([astuple(line) for line in video.lines]).encode(), np.uint8)
    np.savez(content, numbers=np.array(numbers, np.int64), lines=lines, **arrays)
    return content.getvalue()


def unpack_video(content: bytes, attachment: Attachment) -> Video:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        start_tick, base, base_ratio, rate, rate_ratio, last_frame_ticks, counted, height, width = arrays[
            "numbers"
        ].tolist()
        timeline = Timeline(
            **{name: arrays[name] for name in _ARRAYS},
            start_tick=start_tick,
            time_base=Fraction(base, base_ratio),
            rate=Fraction(rate, rate_ratio) or None,
            last_frame_ticks=last_frame_ticks,
            counted=bool(counted),
        )
        lines = tuple(Line(*line) for line in json.loads(arrays["lines"].tobytes()))
    return Video(attachment, timeline, Size(height, width), lines)
