"""Speech as lines: by a scripted transcriber, and the interface of the real one. No model is on a test's machine."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from preprocess.cache.disk_cache import DiskCache
from preprocess.cache.speech import FasterWhisper, load_transcriber, transcribed
from preprocess.media.attachment import Attachment
from preprocess.media.subtitles import Line
from preprocess.workers.reader import Reader
from tests.support import media, needs, readers


def _go_on() -> None:
    """Nothing interrupts."""


@dataclass
class Scripted:
    """Says the same at the same time of whatever it hears."""

    name: str = "scripted"
    heard: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Iterator[Line]:
        self.heard.append(samples)
        yield Line(0.5, 1.0, " Mind the gap.", "Speech")


def video_of(reader: Reader, name: str, subtitles: bool | str = True) -> Any:
    attachment = Attachment("video", "v", name)
    return reader.video(attachment, thumbnails=False, subtitles=subtitles)


def test_speech_of_a_video_without_subtitles(tmp_path: Path) -> None:
    transcriber = Scripted()
    cache = DiskCache(tmp_path / "cache", 1 << 24)
    reader = readers.reader(tmp_path, cache=cache, transcriber=transcriber)
    media.make_video(tmp_path / "a.mp4", frames=48, audio=True)
    for _ in range(2):
        assert video_of(reader, "a.mp4").lines == (Line(0.5, 1.0, "Mind the gap.", "Speech"),)
    (samples,) = transcriber.heard
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(2 * 16_000, rel=0.1)
    # A tone of 440 Hz.
    spectrum = np.abs(np.fft.rfft(samples[4000:20000]))
    assert spectrum.argmax() * 16_000 / 16_000 == pytest.approx(440, abs=5)
    assert 0.1 < np.abs(samples).max() <= 1.0
    assert video_of(reader, "a.mp4", False).lines == ()

    media.make_video(tmp_path / "told.mkv", audio=True, subtitles=[("subrip", "eng", [Line(0, 1, "Told.")])])
    assert [line.text for line in video_of(reader, "told.mkv").lines] == ["Told."]
    media.make_video(tmp_path / "silent.mp4")
    assert video_of(reader, "silent.mp4").lines == ()
    assert len(transcriber.heard) == 1


def test_times_count_from_the_players_zero_across_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.cache.speech.WINDOW_SECONDS", 2.0)
    second = np.zeros(16_000, np.int16)
    pieces = [(start, second) for start in (5.0, 6.0, 7.0, 20.0)]
    lines = transcribed(pieces, 5.0, Scripted(), _go_on)
    assert [line.start for line in lines] == [0.5, 2.5, 15.5]


def test_an_interrupt_ends_the_transcription() -> None:
    def interrupt() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        transcribed([(0.0, np.zeros(16_000, np.int16))], 0.0, Scripted(), interrupt)


def test_sound_is_read_as_far_as_it_decodes(tmp_path: Path) -> None:
    media.make_video(tmp_path / "a.mkv", frames=96, audio=True)
    content = bytearray((tmp_path / "a.mkv").read_bytes())
    content[len(content) // 2 :: 7] = bytes(len(content[len(content) // 2 :: 7]))
    attachment = Attachment("video", "v", bytes(content))
    samples = sum(len(piece) for _, piece in readers.reader(None).sound(attachment))
    assert 16_000 < samples < 5 * 16_000


def test_what_is_asked_of_faster_whisper() -> None:
    class Model:
        def transcribe(self, samples: npt.NDArray[np.float32], *, vad_filter: bool) -> Any:
            assert vad_filter
            return iter([SimpleNamespace(start=1.0, end=2.0, text=" Hello.")]), SimpleNamespace(language="en")

    transcriber = FasterWhisper("folder", Model(), threading.Lock())
    assert list(transcriber.transcribe(np.zeros(9, np.float32))) == [Line(1.0, 2.0, " Hello.", "Speech")]


@needs.module("faster_whisper", "make .venv/.speech")
def test_faster_whisper_takes_what_it_is_asked() -> None:
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import Segment

    inspect.signature(WhisperModel).bind("folder", local_files_only=True)
    inspect.signature(WhisperModel.transcribe).bind(None, np.zeros(9, np.float32), vad_filter=True)
    assert {"start", "end", "text"} <= set(Segment.__dataclass_fields__)


@needs.module("faster_whisper", "make .venv/.speech")
def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder with a model\.bin of CTranslate2 is accepted"):
        load_transcriber(tmp_path)
