"""How to generate, what to look at, how long to wait, how to connect."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SamplingParameters:
    """How the answer is generated. What is None is left to the server, which also checks the values."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    response_format: Mapping[str, Any] | None = None
    """The form of the answer, in OpenAI's words: `{"type": "json_object"}`, `{"type": "json_schema", "json_schema":
    {"schema": …}}`; or `{"type": "regex", "regex": …}`."""


@dataclass(frozen=True)
class VideoOptions:
    """Which frames are looked at, and how closely. What is None is left to the server, which also checks the values."""

    sampler: str | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    max_tokens_per_frame: int | None = None
    max_video_tokens: int | None = None
    context_length: int | None = None
    start: float | None = None
    """Seconds into the video where looking begins."""
    end: float | None = None
    """Seconds into the video where looking ends."""
    subtitles: bool | str | None = None
    """Whether the video's lines are read beside its pictures; a language tag: those in that language."""


_SLOW_BYTES_PER_SECOND = 2**17


@dataclass(frozen=True)
class Timeouts:
    """Limits in seconds; `math.inf` lifts one.

    `connect` bounds reaching the server. `silence` bounds the time between two responses once the request is uploaded:
    the server reports its progress, so a longer silence means that it is stuck; the default leaves it the time to say
    so itself. `total` bounds the request from first byte to last.
    """

    connect: float = 10.0
    silence: float = 90.0
    total: float = 3600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            seconds = getattr(self, field.name)
            if not seconds > 0:
                raise ValueError(f"timeouts.{field.name} is {seconds}; a number of seconds above 0 is accepted")


@dataclass(frozen=True)
class Tls:
    """An encrypted connection. PEM files: the certificates to trust (None: the system's), and for a server that asks
    its clients for a certificate, the client's own with its key."""

    root_certificates: str | Path | None = None
    private_key: str | Path | None = None
    certificate_chain: str | Path | None = None


def look_seconds(timeouts: Timeouts, upload_bytes: int) -> float:
    """How long a look may take: nothing is heard of it before it is there, and a slow upload is no silence."""
    return min(timeouts.total, timeouts.silence + upload_bytes / _SLOW_BYTES_PER_SECOND)


def with_total(timeouts: Timeouts, total: float | None) -> Timeouts:
    """The same limits with another total, if one is given."""
    return timeouts if total is None else replace(timeouts, total=total)


def merge(
    sampling: SamplingParameters | Mapping[str, Any] | None,
    video_options: VideoOptions | Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two JSON objects of a request: (sampling parameters, video options). Keywords win over the objects.

    A mapping is passed on as it is, so that a newer server's keys can be used.

    Raises:
        TypeError: a keyword belongs to neither.
    """
    sampling_names = {field.name for field in fields(SamplingParameters)}
    video_names = {field.name for field in fields(VideoOptions)}
    if unknown := sorted(keywords.keys() - sampling_names - video_names):
        accepted = ", ".join(sorted(sampling_names | video_names))
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; options are {accepted}")
    return (
        _given(sampling) | {key: value for key, value in keywords.items() if key in sampling_names},
        _given(video_options) | {key: value for key, value in keywords.items() if key in video_names},
    )


def _given(options: SamplingParameters | VideoOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    if options is None:
        return {}
    values = dict(options) if isinstance(options, Mapping) else asdict(options)
    return {key: value for key, value in values.items() if value is not None}
