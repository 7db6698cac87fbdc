"""The timeline of a video, read without decoding: when each frame is shown, its kind and packet size."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.subtitles.stream import SubtitleStream

from preprocess.errors import InvalidArgumentError
from preprocess.media.change import Score, packet_score

MAX_PACKETS = 10_000_000
"""The bound on packets of video: two days of 60 frames per second."""
_MOST_TIMES_READ = 4
_ALWAYS_READ_BYTES = 1 << 20
"""Packets together are at most so many times as large as the file, and so much larger: tables that name the same bytes
again and again make millions of frames of a small file."""
_PACKET_BYTES = 8
"""A packet counts for so much beside its content; in a container it costs as much."""
_ROW = 5
"""Numbers of a packet: presentation tick, bytes, key frame, duration in ticks, shown. One array has them all, for there
may be millions."""

# VP8 marks frames that are never shown (alternate references) in the first byte of their packets.
_VP8_SHOWN = 0x10


@dataclass(frozen=True, eq=False)
class Timeline:
    """The frames of a video in the order in which they are shown. Arrays are `[frames]`."""

    ticks: npt.NDArray[np.int64]
    """Presentation times in units of `time_base` as the container counts them."""
    start_tick: int
    """The tick at which a player's clock shows zero."""
    time_base: Fraction
    """Seconds per tick."""
    key_frames: npt.NDArray[np.bool_]
    packet_bytes: npt.NDArray[np.int64]
    decode_ranks: npt.NDArray[np.int64]
    """How many frames are decoded before each."""
    changes: Score
    """How far each frame stands out from those around it by its change of the picture."""
    rate: Fraction | None
    """Frames per second if it is constant, else None."""
    last_frame_ticks: int
    """How long the last frame is shown."""
    counted: bool
    """The container stores no presentation times (AVI): frame k is the k-th that is decoded, whatever time it bears."""
    broken_off: str = ""
    """Why the file is taken to have gone on once; empty if it ends as it should."""

    def __len__(self) -> int:
        return len(self.ticks)

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """When each frame is shown on a player's clock: it starts with the presentation, not with the stream's counter.

        Ticks divided by the ticks in a second: the same floats as the reference's index / fps.
        """
        return (self.ticks - self.start_tick) / float(1 / self.time_base)

    @property
    def zero_seconds(self) -> float:
        """The time of the container's clock when a player's shows zero."""
        return float(self.start_tick * self.time_base)

    @property
    def end_seconds(self) -> float:
        """When the last frame is no longer shown."""
        return float((self.ticks[-1] + self.last_frame_ticks - self.start_tick) * self.time_base)


def read_timeline(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    name: str,
    interrupt: Callable[[], None],
    track: SubtitleStream | None = None,
    take_words: Callable[[av.Packet], None] = lambda packet: None,
) -> Timeline:
    """Reads every packet of `stream` once and decodes none; those of `track` are given to `take_words` on the way.

    Calls `interrupt` now and then; what that raises ends the reading. Raises InvalidArgumentError for a video without
    frames or duration, or with tables that name its bytes many times. One that breaks off is read as far as it goes.
    """
    # AVI numbers its frames in decoding order; the presentation times that FFmpeg makes of it are wrong with B-frames.
    counted = container.format.name == "avi"
    is_vp8 = stream.codec_context.codec.canonical_name == "vp8"
    rows, packets, failure = array("q"), 0, None
    try:
        for packet in _video_packets(container, stream, name, interrupt, track, take_words):
            packets += 1
            rows.extend(_row(packet, counted, is_vp8))
    except av.FFmpegError as error:
        if not rows:
            raise InvalidArgumentError(f"{name} cannot be read: {error.strerror}") from error
        failure = error
    if packets < stream.frames:
        # The last may be cut off in the middle; not every container's reader marks it as corrupt.
        del rows[-_ROW:]
    if not rows:
        raise InvalidArgumentError(f"{name} has a video stream without frames")
    timeline = _arrange(rows, container, stream, name, counted)
    return replace(timeline, broken_off=_broken_off(packets, stream.frames, failure))


def _video_packets(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    name: str,
    interrupt: Callable[[], None],
    track: SubtitleStream | None,
    take_words: Callable[[av.Packet], None],
) -> Iterator[av.Packet]:
    """The packets of `stream` that hold something; those of `track` go to `take_words`."""
    packets = read_bytes = 0
    most_bytes = _MOST_TIMES_READ * container.size + _ALWAYS_READ_BYTES
    for packet in container.demux(stream if track is None else (stream, track)):
        read_bytes += packet.size + _PACKET_BYTES
        if read_bytes > most_bytes:
            raise InvalidArgumentError(
                f"{name} has {container.size} bytes, and its tables name {read_bytes} bytes of packets or more; at"
                f" most {most_bytes} are accepted, {_MOST_TIMES_READ} times its size and {_ALWAYS_READ_BYTES}"
            )
        if packet.stream is not stream:
            if packet.size:
                take_words(packet)
            continue
        if packets % 1024 == 0:
            interrupt()
        # A corrupt one is cut off in the middle.
        if packet.is_corrupt or not packet.size:
            continue
        packets += 1
        if packets > MAX_PACKETS:
            raise InvalidArgumentError(f"{name} has more than {MAX_PACKETS} packets of video, the most accepted")
        yield packet


def _row(packet: av.Packet, counted: bool, is_vp8: bool) -> tuple[int, ...]:
    """The numbers of a packet, `_ROW` of them; none of one that shows no frame at a known time."""
    tick = packet.dts if counted else packet.pts
    hidden = is_vp8 and not bytes(packet)[0] & _VP8_SHOWN
    if tick is None or hidden:
        return ()
    return tick, packet.size, packet.is_keyframe, packet.duration or 0, not packet.is_discard


def _broken_off(packets: int, announced: int, failure: av.FFmpegError | None) -> str:
    """Why the file is taken to have gone on once; empty if it ends as it should."""
    if packets < announced:
        return f"its header announces {announced} frames, {packets} are there"
    return f"it cannot be read to its end: {failure.strerror}" if failure else ""


def _arrange(
    rows: array[int],
    container: av.container.InputContainer,
    stream: av.VideoStream,
    name: str,
    counted: bool,
) -> Timeline:
    ticks, sizes, keys, durations, shown = np.array(rows).reshape(-1, _ROW).T
    keys, shown = keys.astype(bool), shown.astype(bool)
    # Pictures before the first key frame, in decoding or in presentation order, refer to what a cut took away.
    if keys.any():
        first_key = int(keys.argmax())
        decodable = (np.arange(len(ticks)) >= first_key) & (ticks >= ticks[first_key])
        shown &= decodable
    # What an edit list hides is not shown, but others may refer to it: it counts as decoded.
    ranks = np.flatnonzero(shown)
    if not len(ranks):
        raise InvalidArgumentError(f"{name} has a video stream without frames")
    distinct, first = np.unique(ticks[shown], return_index=True)
    order = ranks[first]
    if len(distinct) == 1 < len(ranks):
        raise InvalidArgumentError(
            f"{name} has a duration of zero: its {len(ranks)} frames are all shown at the same time"
        )
    time_base = stream.time_base
    assert time_base is not None
    rate = _constant_rate(distinct, stream, time_base)
    mean_ticks = round((distinct[-1] - distinct[0]) / (len(distinct) - 1)) if len(distinct) > 1 else 0
    return Timeline(
        ticks=distinct,
        start_tick=_start_tick(int(distinct[0]), container, time_base),
        time_base=time_base,
        key_frames=keys[order],
        packet_bytes=sizes[order],
        decode_ranks=order,
        changes=packet_score(sizes[order], keys[order], order),
        rate=rate,
        last_frame_ticks=round(1 / rate / time_base) if rate else int(durations[order[-1]]) or mean_ticks,
        counted=counted,
    )


def _constant_rate(ticks: npt.NDArray[np.int64], stream: av.VideoStream, time_base: Fraction) -> Fraction | None:
    """The rate on whose grid every frame lies, but for rounding to ticks: the header's if true, else the measured."""
    candidates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    if len(ticks) > 1:
        candidates.append((len(ticks) - 1) / (int(ticks[-1] - ticks[0]) * time_base))
    for rate in candidates:
        grid = np.arange(len(ticks)) * float(1 / rate / time_base)
        if np.abs(ticks - ticks[0] - grid).max() <= 1:
            return rate
    return None


def _start_tick(first: int, container: av.container.InputContainer, time_base: Fraction) -> int:
    """Zero on a player's clock: where the container's first stream starts, be it video or sound.

    Not before zero, where the priming of sound lies, unless pictures are shown there.
    """
    start = round(Fraction(max(container.start_time or 0, 0), av.time_base) / time_base)
    return min(start, first)
