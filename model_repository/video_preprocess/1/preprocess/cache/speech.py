"""Speech as lines of text, by a model of faster-whisper in a folder of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from preprocess.media.sound import SAMPLES_PER_SECOND, Samples
from preprocess.media.subtitles import Line, tidy

LABEL = "Speech"
"""The label of its lines, where subtitles have theirs."""
WINDOW_SECONDS = 300.0
"""Transcribed at a time, so that hours of sound are never in memory at once."""


class Transcriber(Protocol):
    @property
    def name(self) -> str:
        """Tells models apart."""

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Iterable[Line]:
        """The lines that are said in `[samples]` from -1 to 1, 16,000 per second; times count from the first."""


@dataclass(frozen=True)
class FasterWhisper:
    """faster-whisper's `WhisperModel`, used by one session at a time."""

    name: str
    model: object
    in_use: threading.Lock

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Iterator[Line]:
        with self.in_use:
            segments, _ = self.model.transcribe(samples, vad_filter=True)  # type: ignore[attr-defined]
            for segment in segments:
                yield Line(segment.start, segment.end, segment.text, LABEL)


def load_transcriber(folder: Path) -> Transcriber:
    """Raises ValueError where faster-whisper is not installed (requirements/speech.txt) or the folder has no model."""
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise ValueError("speech_model is set; it needs faster-whisper: requirements/speech.txt") from None
    if not (folder / "model.bin").is_file():
        raise ValueError(f"speech_model is {folder}; a folder with a model.bin of CTranslate2 is accepted")
    return FasterWhisper(str(folder.resolve()), WhisperModel(str(folder), local_files_only=True), threading.Lock())


def transcribed(
    pieces: Iterable[tuple[float, Samples]],
    zero_seconds: float,
    transcriber: Transcriber,
    interrupt: Callable[[], None],
) -> tuple[Line, ...]:
    """The lines of a video's sound; the player's clock shows zero at `zero_seconds` of the container's."""
    lines: list[Line] = []
    for start, samples in _windows(pieces):
        for line in transcriber.transcribe(samples.astype(np.float32) / 32768):
            interrupt()
            offset = start - zero_seconds
            lines.append(Line(line.start + offset, line.end + offset, line.text, LABEL))
        interrupt()
    return tidy(lines)


def _windows(pieces: Iterable[tuple[float, Samples]]) -> Iterator[tuple[float, Samples]]:
    """Pieces joined to WINDOW_SECONDS; a new window begins where the sound has a gap."""
    begin, gathered, count = 0.0, list[Samples](), 0
    for start, samples in pieces:
        end = begin + count / SAMPLES_PER_SECOND
        if gathered and (abs(start - end) > 1.0 or count >= WINDOW_SECONDS * SAMPLES_PER_SECOND):
            yield begin, np.concatenate(gathered)
            gathered, count = [], 0
        if not gathered:
            begin = start
        gathered.append(samples)
        count += len(samples)
    if gathered:
        yield begin, np.concatenate(gathered)
