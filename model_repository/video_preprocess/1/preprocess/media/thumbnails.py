"""Thumbnails of the frames that others refer to: where the pictures change, if decoding those costs little.

Packet sizes say little where the encoder spends a fixed rate on a still scene; pixels tell.
"""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from preprocess.media.change import CUT, Score, standing_out

MOST_PIXELS = 1_250_000_000
"""Frames times their pixels up to which thumbnails are taken: about two seconds of decoding on two cores."""

_WIDTH, _HEIGHT = 32, 18
_CHANGED_CELLS = 12
"""Cells whose mean difference counts, 2 % of the thumbnail: something small counts as much as a new picture."""
_CUT_STEPS = 8.0
"""At a cut the median cell changes by at least this, in 8-bit steps, and stands out by _CUT_SPREADS."""
_CUT_SPREADS = 2.0
_NOISE_STEPS = 2.0
"""Added to differences, in 8-bit steps: below this they are noise."""


def thumbnail_score(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    ticks: npt.NDArray[np.int64],
    interrupt: Callable[[], None],
) -> Score:
    """The change signal `[frames]` at the frames with the presentation times `ticks`; 0 for frames that none refers to.

    Raises av.FFmpegError where the stream does not decode.
    """
    stream.codec_context.skip_frame = "NONREF"
    reformatter = VideoReformatter()
    shown: list[int] = []
    most_changed: list[float] = []
    median_changed: list[float] = []
    previous: npt.NDArray[np.int16] | None = None
    for frame in container.decode(stream):
        interrupt()
        if frame.pts is None:
            continue
        thumbnail = reformatter.reformat(
            frame, width=_WIDTH, height=_HEIGHT, format="gray", interpolation=Interpolation.AREA
        )
        cells = thumbnail.to_ndarray().astype(np.int16)
        if previous is not None:
            difference = np.abs(cells - previous).ravel()
            shown.append(frame.pts)
            most_changed.append(float(np.partition(difference, -_CHANGED_CELLS)[-_CHANGED_CELLS:].mean()))
            median_changed.append(float(np.median(difference)))
        previous = cells
    score = np.zeros(len(ticks), np.float32)
    frames = np.searchsorted(ticks, shown)
    known = (frames < len(ticks)) & (ticks[np.minimum(frames, len(ticks) - 1)] == shown)
    local, whole = np.array(most_changed), np.array(median_changed)
    cut = (whole >= _CUT_STEPS) & (standing_out(whole + _NOISE_STEPS) >= _CUT_SPREADS)
    score[frames[known]] = np.where(cut, CUT, standing_out(local + _NOISE_STEPS))[known]
    return score
