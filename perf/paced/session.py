"""In the place of the vision encoder's `encoder/session.py`."""

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.chunk import MERGED_PATCHES, Chunk


class VisionEncoder:
    """Sleeps for as long as a device would encode, and returns zeros."""

    def __init__(self, onnx: Path, *, threads: int = 0) -> None:
        self._seconds_per_token = float(os.environ["PACED_ENCODE_SECONDS_PER_TOKEN"])
        self._width = int(os.environ["PACED_FEATURE_WIDTH"])

    def encode(self, chunk: Chunk) -> NDArray[np.float32]:
        frames, patches, _ = chunk.patches.shape
        time.sleep(frames * (patches // MERGED_PATCHES) * self._seconds_per_token)
        return np.zeros((frames, patches // MERGED_PATCHES, self._width), np.float32)
