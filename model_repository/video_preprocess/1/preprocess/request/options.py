"""`video_options`: what a request may say about how its videos are looked at."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
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


def parse_video_options(options: Any) -> VideoOptions:
    """Checks names, types and ranges; raises InvalidArgumentError with what is accepted."""
    if not isinstance(options, dict):
        raise InvalidArgumentError(f"video_options is {shown(options)}; a JSON object is accepted")
    accepted = [field.name for field in fields(VideoOptions)]
    for name in options:
        if name not in accepted:
            raise InvalidArgumentError(
                f"video_options has the unknown key {shown(name)}; accepted are {', '.join(accepted)}"
            )
    given = {name: value for name, value in options.items() if value is not None}
    if "sampler" in given and given["sampler"] not in list(SAMPLERS):
        raise InvalidArgumentError(
            f"video_options.sampler is {shown(given['sampler'])}; accepted are {', '.join(SAMPLERS)}"
        )
    if "fps" in given:
        _check_number(given, "fps", above=0, at_most=MAX_FPS)
    for name in ("start", "end"):
        if name in given:
            _check_number(given, name, at_least=0)
    for name, at_most in (
        ("min_frames", MAX_FRAMES),
        ("max_frames", MAX_FRAMES),
        ("max_tokens_per_frame", MAX_TOKENS),
        ("max_video_tokens", MAX_TOKENS),
        ("context_length", MAX_TOKENS),
    ):
        if name in given:
            _check_integer(given, name, at_most=at_most)
    subtitles = given.get("subtitles", True)
    if not isinstance(subtitles, bool) and not (isinstance(subtitles, str) and _LANGUAGE.fullmatch(subtitles)):
        raise InvalidArgumentError(
            f"video_options.subtitles is {shown(subtitles)}; true, false or a language tag is accepted"
        )
    parsed = VideoOptions(**given)
    for low, high in (("min_frames", "max_frames"), ("start", "end")):
        if low in given and high in given and given[low] > given[high]:
            raise InvalidArgumentError(
                f"video_options.{low} is {given[low]}, more than {high}, {given[high]}; at most as much is accepted"
            )
    return parsed


def _check_number(
    options: dict[str, Any],
    name: str,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    value = options[name]
    bounds = [
        f"{word} {bound}"
        for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
        if math.isfinite(bound)
    ]
    # A JSON number may be an integer of any size, or (Python accepts them) NaN and Infinity.
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
    if not number or not above < value or not at_least <= value <= at_most:
        raise InvalidArgumentError(
            f"video_options.{name} is {shown(value)}; a number {' and '.join(bounds)} is accepted"
        )


def _check_integer(options: dict[str, Any], name: str, *, at_most: int) -> None:
    value = options[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= at_most:
        raise InvalidArgumentError(
            f"video_options.{name} is {shown(value)}; an integer of at least 1 and at most {at_most} is accepted"
        )
