"""`video_options`: how a request wants its videos to be looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preprocess.errors import InvalidArgumentError, shown
from preprocess.media.subtitles import Choice
from preprocess.sampling.samplers import SAMPLERS

MAX_FPS = 60
MAX_FRAMES = 65_536
MAX_TOKENS = 1 << 24
# BCP 47's tags, and ISO 639's codes among them.
_LANGUAGE = re.compile(r"[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8}){0,5}")


@dataclass(frozen=True)
class VideoOptions:
    """None: the checkpoint's own. Times are seconds of the presentation."""

    sampler: str = "adaptive"
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    max_tokens_per_frame: int | None = None
    """Visual tokens of one temporal patch."""
    max_video_tokens: int | None = None
    """Visual tokens of one video."""
    context_length: int | None = None
    start: float | None = None
    end: float | None = None
    subtitles: Choice = True


@dataclass(frozen=True)
class _Bound:
    """The values of one option that are accepted, in words and in code."""

    words: str
    accepts: Callable[[Any], bool]


def _integer(most: int) -> _Bound:
    return _Bound(
        f"an integer of at least 1 and at most {most} is accepted",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most,
    )


def _is_number(value: Any) -> bool:
    """A JSON number may be an integer of any size, or (Python accepts them) NaN and Infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12


def _is_choice(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and _LANGUAGE.fullmatch(value) is not None)


_SECONDS = _Bound("a number at least 0 is accepted", lambda value: _is_number(value) and value >= 0)
_BOUNDS = {
    "sampler": _Bound(f"accepted are {', '.join(SAMPLERS)}", lambda value: value in list(SAMPLERS)),
    "fps": _Bound(
        f"a number above 0 and at most {MAX_FPS} is accepted",
        lambda value: _is_number(value) and 0 < value <= MAX_FPS,
    ),
    "min_frames": _integer(MAX_FRAMES),
    "max_frames": _integer(MAX_FRAMES),
    "max_tokens_per_frame": _integer(MAX_TOKENS),
    "max_video_tokens": _integer(MAX_TOKENS),
    "context_length": _integer(MAX_TOKENS),
    "start": _SECONDS,
    "end": _SECONDS,
    "subtitles": _Bound("true, false or a language tag is accepted", _is_choice),
}


def parse_video_options(options: Any) -> VideoOptions:
    """Checks names, types and ranges; raises InvalidArgumentError with what is accepted."""
    if not isinstance(options, dict):
        raise InvalidArgumentError(f"video_options is {shown(options)}; a JSON object is accepted")
    for name in options:
        if name not in _BOUNDS:
            raise InvalidArgumentError(
                f"video_options has the unknown key {shown(name)}; accepted are {', '.join(_BOUNDS)}"
            )
    given = {name: value for name, value in options.items() if value is not None}
    for name, bound in _BOUNDS.items():
        if name in given and not bound.accepts(given[name]):
            raise InvalidArgumentError(f"video_options.{name} is {shown(given[name])}; {bound.words}")
    for low, high in (("min_frames", "max_frames"), ("start", "end")):
        if low in given and high in given and given[low] > given[high]:
            raise InvalidArgumentError(
                f"video_options.{low} is {given[low]}, more than {high}, {given[high]}; at most as much is accepted"
            )
    return VideoOptions(**given)
