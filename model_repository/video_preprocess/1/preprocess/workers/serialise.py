"""All that is known of a video, as bytes: for the cache, and between the stage and its workers."""

from __future__ import annotations

import io
import json
from fractions import Fraction

import numpy as np

from preprocess.media.attachment import Attachment
from preprocess.media.size import Size
from preprocess.media.subtitles import Line
from preprocess.media.timeline import Timeline
from preprocess.media.video import Video

_ARRAYS = ("ticks", "key_frames", "packet_bytes", "decode_ranks", "changes")


def pack_video(video: Video) -> bytes:
    timeline = video.timeline
    rate = timeline.rate or Fraction(0)
    numbers = (
        *(timeline.start_tick, *timeline.time_base.as_integer_ratio(), *rate.as_integer_ratio()),
        *(timeline.last_frame_ticks, timeline.counted, video.size.height, video.size.width),
    )
    content = io.BytesIO()
    arrays = {name: getattr(timeline, name) for name in _ARRAYS}
    lines = [(line.start, line.end, line.text, line.label) for line in video.lines]
    texts = json.dumps([timeline.broken_off, lines], ensure_ascii=False)
    arrays["texts"] = np.frombuffer(texts.encode(), np.uint8)
    np.savez(content, numbers=np.array(numbers, np.int64), **arrays)
    return content.getvalue()


def unpack_video(content: bytes, attachment: Attachment) -> Video:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        start_tick, base, base_ratio, rate, rate_ratio, last_frame_ticks, counted, height, width = arrays[
            "numbers"
        ].tolist()
        broken_off, lines = json.loads(arrays["texts"].tobytes())
        timeline = Timeline(
            **{name: arrays[name] for name in _ARRAYS},
            start_tick=start_tick,
            time_base=Fraction(base, base_ratio),
            rate=Fraction(rate, rate_ratio) or None,
            last_frame_ticks=last_frame_ticks,
            counted=bool(counted),
            broken_off=broken_off,
        )
    return Video(attachment, timeline, Size(height, width), tuple(Line(*line) for line in lines))
