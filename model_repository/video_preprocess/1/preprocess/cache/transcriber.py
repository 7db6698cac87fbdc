"""What makes text of speech."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from preprocess.media.subtitles import Line

LABEL = "Speech"
"""Of its lines, where those of subtitles have theirs."""


class Transcriber(Protocol):
    @property
    def name(self) -> str:
        """Tells models apart."""

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Iterable[Line]:
        """What is said in `[samples]` from -1 to 1, 16,000 per second; times count from the first."""
