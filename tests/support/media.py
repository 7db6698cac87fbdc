"""Test media, made with real encoders: videos whose every frame can be told apart, and images.

Everything is drawn from a seed. A frame is a smooth random background that drifts, and a strip of black and white cells
at its top that spells the frame's number in binary (`frame_number` reads it back, after lossy coding and resizing too).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import SubtitleSet
from PIL import Image

NUMBER_BITS = 12
"""Cells of the strip: frames of one video are told apart up to 4096."""

# Encoders that are fast enough for tests; the lowest presets that still make B-frames where the codec has them.
_ENCODER_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:bframes=2"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "25", "b": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "2M"},
    "libsvtav1": {"preset": "12", "crf": "30", "svtav1-params": "lp=1"},
    "mpeg4": {"q": "4", "bf": "2"},
}
_AUDIO_CODECS = {".webm": "libopus", ".avi": "libmp3lame"}


def draw_frame(index: int, *, width: int, height: int, seed: int = 0) -> np.ndarray:
    """The picture `index` of a video: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, size=(3, 2))
    rate = rng.uniform(1, 4, size=(3, 2))
    rows = np.linspace(0, np.pi, height)[:, None, None]
    columns = np.linspace(0, np.pi, width)[None, :, None]
    waves = np.sin(rows * rate[:, 0] + phase[:, 0] + 0.15 * index) * np.cos(columns * rate[:, 1] + phase[:, 1])
    picture = (waves * 110 + 128).astype(np.uint8)
    edges = np.linspace(0, width, NUMBER_BITS + 1).astype(int)
    for bit in range(NUMBER_BITS):
        picture[: height // 4, edges[bit] : edges[bit + 1]] = 255 * (index >> bit & 1)
    return picture


def frame_number(picture: np.ndarray) -> int:
    """The number spelled in the strip of a picture [height, width, 3] of any size from about 48 pixels wide."""
    height, width, _ = picture.shape
    row = picture[height // 8].mean(axis=-1)
    centres = ((np.arange(NUMBER_BITS) + 0.5) * width / NUMBER_BITS).astype(int)
    return sum(1 << bit for bit, column in enumerate(centres) if row[column] > 127)


def frame_ticks(frames: int, *, fps: float | Fraction, variable: bool = False, seed: int = 0) -> list[int]:
    """The presentation times of a video's frames in whole milliseconds, counted from its first frame.

    With `variable` each frame lasts a half, one, two or four times as long as nominal.
    """
    nominal = 1000 / Fraction(fps).limit_denominator(100_000)
    if not variable:
        return [round(index * nominal) for index in range(frames)]
    lengths = np.random.default_rng(seed).choice([0.5, 1.0, 2.0, 4.0], size=frames) * float(nominal)
    return [round(float(time)) for time in np.concatenate([[0.0], np.cumsum(lengths)[:-1]])]


def make_video(
    path: str | Path,
    *,
    width: int = 96,
    height: int = 64,
    frames: int = 24,
    fps: float | Fraction = 24,
    codec: str = "libx264",
    variable: bool = False,
    start_offset_seconds: float = 0.0,
    audio: bool = False,
    rotation: int = 0,
    unknown_duration: bool = False,
    movflags: str = "",
    key_frame_interval: int = 12,
    subtitles: Sequence[tuple[str, str, Sequence[Line]]] = (),
    seed: int = 0,
) -> None:
    """Encodes a video; the container follows from the suffix (.mp4, .mov, .avi, .mkv, .webm).

    `variable`: the times are `frame_ticks(..., variable=True)`, for containers that can hold them (not AVI).
    `start_offset_seconds`: the first frame is shown this late; with `audio` the sound starts at zero.
    `rotation`: 90, 180 or 270 degrees clockwise, as the header tells players; the pixels are not turned.
    `unknown_duration`: the header does not say how long the video is: a fragmented MP4 or a live Matroska or WebM.
    `movflags`: FFmpeg's own, for MP4: `faststart` puts the index first.
    `subtitles`: text tracks: codec (mov_text, subrip, ass, webvtt), language, lines.
    """
    path = Path(path)
    fps = Fraction(fps).limit_denominator(100_000)
    milliseconds = variable or start_offset_seconds != 0
    if milliseconds and path.suffix == ".avi":
        raise ValueError("AVI has neither a variable rate nor a start offset")
    options = {"movflags": movflags} if movflags else {}
    if unknown_duration:
        options = {"movflags": "frag_keyframe+empty_moov"} if path.suffix in (".mp4", ".mov") else {"live": "1"}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(_ENCODER_OPTIONS[codec]))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = key_frame_interval
        stream.codec_context.thread_count = 1
        if rotation:
            # FFmpeg counts counterclockwise; what is written is the matrix that players apply.
            stream.set_display_rotation(-rotation)
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
            offset = round(start_offset_seconds * 1000)
            ticks = [offset + tick for tick in frame_ticks(frames, fps=fps, variable=variable, seed=seed)]
        else:
            stream.codec_context.time_base = 1 / fps
            ticks = list(range(frames))
        sound = container.add_stream(_AUDIO_CODECS.get(path.suffix, "aac"), rate=48_000) if audio else None
        assert sound is None or isinstance(sound, av.AudioStream)
        tracks = [(_add_track(container, codec, language), lines) for codec, language, lines in subtitles]
        for index, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(draw_frame(index, width=width, height=height, seed=seed), format="rgb24")
            frame.pts, frame.time_base = tick, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for track, lines in tracks:
            for line in lines:
                _write_line(container, track, line)
        if sound is not None:
            _encode_tone(container, sound, seconds=float(ticks[-1] * stream.codec_context.time_base))


def make_image(*, width: int = 96, height: int = 64, format: str = "PNG", mode: str = "RGB", seed: int = 0) -> bytes:
    """An encoded picture: `format` is PNG, JPEG or WEBP; `mode` a Pillow mode such as RGB, RGBA, L or P."""
    noise = np.random.default_rng(seed).integers(0, 64, size=(height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(draw_frame(seed, width=width, height=height, seed=seed) // 2 + noise)
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, format=format)
    return buffer.getvalue()


class Line(Protocol):
    """Text that is shown from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def _add_track(container: av.container.OutputContainer, codec: str, language: str) -> SubtitleStream:
    track = container.add_stream(codec)
    assert isinstance(track, SubtitleStream)
    track.metadata["language"] = language
    # What the encoders refuse to do without.
    track.codec_context.subtitle_header = (
        b"[Script Info]\nScriptType: v4.00+\n\n"
        b"[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
        b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    )
    track.codec_context.time_base = track.time_base = Fraction(1, 1000)
    return track


def _write_line(container: av.container.OutputContainer, track: SubtitleStream, line: Line) -> None:
    start, end = round(line.start * 1000), round(line.end * 1000)
    dialogue = f"0,0,Default,,0,0,0,,{line.text}".encode()
    packet = track.codec_context.encode_subtitle(SubtitleSet.create(dialogue, start=0, end=end - start, pts=start))
    packet.stream, packet.time_base = track, Fraction(1, 1000)
    packet.pts = packet.dts = start
    packet.duration = end - start
    container.mux(packet)


def _encode_tone(container: av.container.OutputContainer, stream: av.AudioStream, *, seconds: float) -> None:
    samples = 1024
    for start in range(0, max(samples, int(seconds * 48_000)), samples):
        tone = np.sin((start + np.arange(samples)) * 2 * np.pi * 440 / 48_000) * 0.3
        layout = stream.codec_context.layout.name
        channels = len(stream.codec_context.layout.channels)
        frame = av.AudioFrame.from_ndarray(
            np.repeat(tone[None].astype(np.float32), channels, axis=0), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def with_edits(mp4: bytes, edits: Sequence[tuple[int, int]], *, large_box: bool = False) -> bytes:
    """An MP4 file, its index behind its pictures, whose first track has these edits and no others.

    An edit is (how long it is shown in the movie's time scale, where it starts in the track's). `large_box`: the list
    says its length with 64 bits.
    """
    entries = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in edits)
    content = struct.pack(">II", 0, len(edits)) + entries
    edit_list = _mp4_box(b"edts", _mp4_box(b"elst", content, large=large_box))
    changed = bytearray(mp4)
    movie, movie_end = _find_box(changed, b"moov", 0, len(changed))
    track, track_end = _find_box(changed, b"trak", movie + 8, movie_end)
    old, old_end = _find_box(changed, b"edts", track + 8, track_end)
    changed[old:old_end] = edit_list
    longer = len(edit_list) - (old_end - old)
    for box, end in ((movie, movie_end), (track, track_end)):
        struct.pack_into(">I", changed, box, end - box + longer)
    return bytes(changed)


def _mp4_box(kind: bytes, content: bytes, *, large: bool = False) -> bytes:
    if large:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _find_box(data: bytearray, kind: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the first box of this kind begins and ends; after the others, without any bytes, where there is none."""
    while start < end:
        size, found = struct.unpack_from(">I4s", data, start)
        if found == kind:
            return start, start + size
        start += size
    return end, end
