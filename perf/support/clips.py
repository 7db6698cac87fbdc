"""The clips that the ingest and sampling benchmarks read: made once, kept under `.cache/clips`.

Long files are encoded pieces joined again and again without re-encoding, so that hours take a minute to make. What the
decoder sees is real: x264 and x265 streams with B-frames, key frames at cuts and at most 10 s apart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from perf.support.scenes import Event, Film, Shot, everyday_film

CLIPS = Path(__file__).parents[2] / ".cache" / "clips"
FPS = 25
_TICKS_PER_SECOND = 90_000
_H264 = {"preset": "veryfast", "b": "4500k", "maxrate": "6M", "bufsize": "9M"}
_H265 = {"preset": "ultrafast", "b": "3M", "x265-params": "log-level=none:vbv-maxrate=5000:vbv-bufsize=6000"}
_SAMPLING = (
    ("libx264", {"preset": "veryfast", "crf": "23"}),
    ("libx264", {"preset": "veryfast", "b": "300k", "maxrate": "450k", "bufsize": "600k"}),
    ("libx265", {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=none"}),
)
_PHONE = {"preset": "ultrafast", "b": "16M", "bf": "0"}


@dataclass(frozen=True)
class Clip:
    path: Path
    events: tuple[Event, ...] = ()


def long_clip(seconds: float) -> Clip:
    """1080p H.264 at about 4 Mbit/s: still scenes, talk, slides, pans and fast cuts."""
    return _joined(f"film-{seconds:g}s.mp4", _pieces("film", everyday_pieces(), "libx264", _H264), seconds)


def hevc_clip(seconds: float) -> Clip:
    return _joined(f"hevc-{seconds:g}s.mp4", _pieces("hevc", everyday_pieces()[:3], "libx265", _H265), seconds)


def phone_clip(seconds: float) -> Clip:
    """Hand-held 1080p with a key frame a second, no B-frames, and frames that come when the sensor has one."""
    film = Film((Shot(12, "handheld", 2.0, seed=7),), 1920, 1080, 30)
    pieces = _pieces("phone", [film], "libx264", _PHONE, key_frame_interval=30)
    return _joined(f"phone-{seconds:g}s.mp4", pieces, seconds, uneven=True)


def sampling_clip(seed: int, *, seconds: float = 300, width: int = 480, height: int = 272) -> Clip:
    """A film with known events, encoded in one go: by constant quality, by bitrate, or in HEVC, as the seed has it."""
    film = everyday_film(seconds=seconds, width=width, height=height, fps=FPS, seed=seed)
    path = CLIPS / f"events-{seed}-{seconds:g}s-{width}x{height}.mp4"
    codec, options = _SAMPLING[seed % len(_SAMPLING)]
    _make(path, lambda draft: _encode(draft, film, codec, options, key_frame_interval=250))
    truth = path.with_suffix(".json")
    if not truth.exists():
        truth.write_text(json.dumps([asdict(event) for event in film.events()], indent=1))
    return Clip(path, tuple(Event(**event) for event in json.loads(truth.read_text())))


def everyday_pieces() -> list[Film]:
    """Pieces of a long film: each is a whole shot or several, so that joining makes a cut or goes on with the scene."""
    shots = [
        (Shot(10, "static", 1.5, seed=1),),
        (Shot(6, "pan", 1.5, seed=2),),
        (Shot(8, "handheld", 1.5, seed=3),),
        tuple(Shot(7, "slide", 0.0, seed=4 + index) for index in range(3)),
        tuple(Shot(2, "handheld" if index % 2 else "static", 1.5, seed=8 + index) for index in range(5)),
        (Shot(10, "static", 3.0, seed=14, events=(Event("appearance", 4.0, 6.0),)),),
        (Shot(10, "static", 0.5, seed=15, events=(Event("blink", 5.0, 5.2),)),),
    ]
    return [Film(part, 1920, 1080, FPS) for part in shots]


def _pieces(
    name: str, films: Sequence[Film], codec: str, options: dict[str, str], *, key_frame_interval: int = 250
) -> list[Path]:
    paths = [CLIPS / "pieces" / f"{name}-{index}.mp4" for index in range(len(films))]
    for path, film in zip(paths, films, strict=True):
        _make(path, lambda draft, film=film: _encode(draft, film, codec, options, key_frame_interval))  # type: ignore[misc]
    return paths


def _joined(name: str, pieces: Sequence[Path], seconds: float, *, uneven: bool = False) -> Clip:
    path = CLIPS / name
    _make(path, lambda draft: _join(draft, pieces, seconds, uneven=uneven))
    return Clip(path)


def _make(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under another name first, so that an interrupted run leaves none that looks whole."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"draft-{path.name}")
    write(draft)
    shutil.move(draft, path)


def _encode(path: Path, film: Film, codec: str, options: dict[str, str], key_frame_interval: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=film.fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        stream.codec_context.gop_size = key_frame_interval
        for index, picture in enumerate(film.frames()):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, film.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _join(path: Path, pieces: Sequence[Path], seconds: float, *, uneven: bool) -> None:
    """Repeats pieces in a random order until `seconds` are full. `uneven`: frames come up to half a frame early."""
    rng = np.random.default_rng(0)
    loaded = [_Piece.load(piece) for piece in pieces]
    with av.open(str(pieces[0])) as first, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(first.streams.video[0])
        start = 0
        for piece in _order(rng, loaded):
            if start >= seconds * _TICKS_PER_SECOND:
                break
            for data, pts, dts, key in piece.packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, _TICKS_PER_SECOND)
                early = int(rng.integers(_TICKS_PER_SECOND // FPS // 2)) if uneven and pts else 0
                packet.pts, packet.dts, packet.is_keyframe = start + pts - early, start + dts - early, key
                container.mux(packet)
            start += piece.ticks


def _order(rng: np.random.Generator, pieces: Sequence[_Piece]) -> Iterator[_Piece]:
    """Still scenes go on for a while, as they do."""
    while True:
        piece = pieces[rng.integers(len(pieces))]
        for _ in range(int(rng.integers(1, 6))):
            yield piece


@dataclass(frozen=True)
class _Piece:
    """The packets of a clip (data, pts, dts, key frame) and how long it lasts, in 90 kHz ticks."""

    packets: list[tuple[bytes, int, int, bool]]
    ticks: int

    @classmethod
    def load(cls, path: Path) -> _Piece:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            ticks = stream.time_base * _TICKS_PER_SECOND
            packets = [
                (bytes(packet), round(packet.pts * ticks), round(packet.dts * ticks), packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.pts is not None and packet.dts is not None
            ]
            step = round(_TICKS_PER_SECOND / stream.average_rate)  # type: ignore[operator]
        return cls(packets, max(pts for _, pts, _, _ in packets) + step)
