"""Decoding by plan: the wanted frames in segments, each decoded from the key frame that leads to it, and no further.

What lies between segments is not read. Within one, frames that nothing refers to are skipped unless wanted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from preprocess.media.key_frames import entry_points
from preprocess.media.timeline import Timeline

# HEVC's non-reference pictures may still serve higher temporal layers; other decoders' mark is exact.
_EXACT_NONREF = ("h264", "vp9")
_REORDERED_FRAMES = 32
"""More than any codec decodes before the frame that is shown first."""


@dataclass(frozen=True)
class Segment:
    """`frames`, rising indices into a timeline, are reached by decoding from the key frame `entry`."""

    entry: int
    frames: tuple[int, ...]


def segments_of(timeline: Timeline, indices: npt.NDArray[np.int64]) -> list[Segment]:
    """The segments that hold the frames `indices`, in order, each frame once."""
    wanted = np.unique(indices)
    entries = entry_points(timeline.key_frames)[wanted]
    return [Segment(int(entry), tuple(wanted[entries == entry].tolist())) for entry in np.unique(entries)]


def decode_segment(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    timeline: Timeline,
    segment: Segment,
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The segment's frames with their indices, in order; those that the stream does not give up are left out.

    A decoder that starts in the middle may fail where one that comes from before does not: frames that do not come are
    tried again from the key frame before, and from the beginning. Raises av.FFmpegError where the decoder gives up.
    """
    remaining = deque(segment.frames)
    for entry in _entries(timeline, segment.entry):
        for tick, frame in _roll(container, stream, timeline, entry, remaining, interrupt):
            if tick > timeline.ticks[remaining[0]] or frame.is_corrupt:
                break
            yield remaining.popleft(), frame
            if not remaining:
                return


def _entries(timeline: Timeline, entry: int) -> Sequence[int]:
    before = np.flatnonzero(timeline.key_frames[:entry])
    earlier = int(before[-1]) if len(before) else 0
    return list(dict.fromkeys((entry, earlier, 0)))


def _roll(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    timeline: Timeline,
    entry: int,
    frames: Sequence[int],
    interrupt: Callable[[], None],
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decodes from `entry` on until the last of `frames` is out, and gives those that are among them."""
    context = stream.codec_context
    wanted = {int(timeline.ticks[frame]) for frame in frames}
    last = int(timeline.ticks[max(frames, key=lambda frame: timeline.decode_ranks[frame])])
    exact = context.codec.canonical_name in _EXACT_NONREF
    for packet in _packets(container, stream, timeline, entry):
        interrupt()
        context.skip_frame = "NONREF" if exact and packet.pts not in wanted else "DEFAULT"
        yield from _wanted(context.decode(packet), wanted)
        if packet.pts == last:
            break
    yield from _wanted(context.decode(None), wanted)


def _wanted(frames: Sequence[av.VideoFrame], ticks: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    for frame in frames:
        if frame.pts in ticks:
            yield frame.pts, frame


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream, timeline: Timeline, entry: int
) -> Iterator[av.Packet]:
    """The stream's packets from the key frame `entry` on; all of them if it is none.

    Frames before the first key frame that is shown refer to one that an edit list hides, if any.
    """
    tick = int(timeline.ticks[entry])
    # Containers index decoding times, so that a seek may land on a later key frame: then a little earlier is tried.
    margin = _REORDERED_FRAMES * timeline.last_frame_ticks
    if not timeline.key_frames[entry]:
        container.seek(int(timeline.ticks[0]) - margin, stream=stream)
        yield from (packet for packet in container.demux(stream) if packet.size)
        return
    for target in (tick, tick - margin, int(timeline.ticks[0]) - margin):
        container.seek(target, stream=stream)
        packets = (packet for packet in container.demux(stream) if packet.size)
        for packet in packets:
            if packet.pts == tick:
                yield packet
                yield from packets
                return
            if packet.pts is not None and packet.is_keyframe and packet.pts > tick:
                break
