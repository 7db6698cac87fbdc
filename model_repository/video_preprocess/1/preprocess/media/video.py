"""A video that was opened: all that its packets and, where that costs little, its thumbnails say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import av

from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Attachment
from preprocess.media.frames import first_frame_size
from preprocess.media.library import Library
from preprocess.media.matroska import HEAD_BYTES, announced_bytes
from preprocess.media.size import Size
from preprocess.media.subtitles import MAX_FILE_BYTES, MAX_TRACK_PACKETS, Choice, Line, choose_track, packet_lines, tidy
from preprocess.media.thumbnails import MOST_PIXELS, thumbnail_score
from preprocess.media.timeline import Timeline, read_timeline


@dataclass(frozen=True, eq=False)
class Video:
    """All that is known of a video before decoding."""

    attachment: Attachment
    timeline: Timeline
    size: Size
    """Upright."""
    lines: tuple[Line, ...] = ()
    """Its subtitles."""

    def with_lines(self, lines: tuple[Line, ...]) -> Video:
        return replace(self, lines=lines)


class _Words:
    """The packets of a text track, kept until it is known when the video starts; those beyond a bound are left out."""

    def __init__(self) -> None:
        self.packets: list[av.Packet] = []
        self._bytes = 0

    def take(self, packet: av.Packet) -> None:
        if len(self.packets) < MAX_TRACK_PACKETS and self._bytes + packet.size <= MAX_FILE_BYTES:
            self.packets.append(packet)
            self._bytes += packet.size


def open_video(
    attachment: Attachment, library: Library, interrupt: Callable[[], None], *, subtitles: Choice = False
) -> Video:
    """Reads the packets of a video and, of its text tracks, those of the one that is wanted."""
    with library.open_video(attachment) as (container, stream):
        track = choose_track(container, subtitles, attachment.name)
        words = _Words()
        timeline = read_timeline(container, stream, attachment.name, interrupt, track, words.take)
        lines = tidy(line for packet in words.packets for line in packet_lines(packet, timeline.zero_seconds))
    head, size = library.read_head(attachment, HEAD_BYTES)
    announced = announced_bytes(head)
    if announced is not None and announced > size:
        timeline = replace(timeline, broken_off=f"its header announces {announced} bytes, {size} are there")
    if timeline.end_seconds > library.max_seconds:
        raise InvalidArgumentError(
            f"{attachment.name} lasts {timeline.end_seconds:.0f} seconds;"
            f" at most {library.max_seconds:.0f} are accepted"
        )
    return Video(attachment, timeline, first_frame_size(library, attachment), lines)


def read_thumbnails(video: Video, library: Library, interrupt: Callable[[], None]) -> Video:
    """Takes the changes of the picture from the pictures where that costs little; else those of the packets stay."""
    timeline = video.timeline
    if timeline.counted or len(timeline) * video.size.height * video.size.width > MOST_PIXELS:
        return video
    with library.open_video(video.attachment) as (container, stream):
        try:
            changes = thumbnail_score(container, stream, timeline.ticks, interrupt)
        except av.FFmpegError:
            # Whether what is damaged is looked at at all is not decided yet.
            return video
    return replace(video, timeline=replace(timeline, changes=changes))
