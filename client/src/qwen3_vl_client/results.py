"""The results of a request: events while it runs, an answer at its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far the server is before it answers.

    `upload`: the request is on its way. `sampling`: the media are opened and frames chosen. `waiting`: for memory that
    other requests hold. `prefill`: the model has read `prefilled_tokens` of the prompt's `prompt_tokens`. Counts are 0
    until they are known.
    """

    phase: str
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    upload_bytes: int = 0


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


Event = Progress | TextDelta


@dataclass(frozen=True)
class Medium:
    """One video or image as the model saw it."""

    kind: str
    grid: tuple[int, ...]
    """Temporal patches, and rows and columns of 16×16 pixel patches."""
    timestamps: tuple[float, ...]
    """Seconds, one per temporal patch, as written in the prompt; empty for an image."""


@dataclass(frozen=True)
class LookedMedium(Medium):
    """A video or image as the model would see it; of an image, the rest is 0 or empty."""

    seconds: float = 0.0
    """When the video's last frame is no longer shown."""
    cuts: tuple[float, ...] = ()
    """Seconds at which new scenes begin."""
    changes: tuple[float, ...] = ()
    """How much the picture changes, from 0 to 1, in equal spans of 0 to `seconds`."""
    pauses: tuple[tuple[float, float], ...] = ()
    """Starts and ends of the times between subtitle lines; empty without any."""


@dataclass(frozen=True)
class Look:
    """The frames that a request would look at; nothing was decoded for it."""

    prompt_tokens: int
    wanted_tokens: int
    """Tokens that the prompt would have if the context had room: more than `prompt_tokens` where less is shown."""
    context_length: int
    """Tokens that the server has for a prompt and its answer."""
    media: tuple[LookedMedium, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Look":
        """Reads the server's `look`; keys that this version does not know are passed over."""
        return cls(
            prompt_tokens=data["prompt_tokens"],
            wanted_tokens=data["wanted_tokens"],
            context_length=data["context_length"],
            media=tuple(
                LookedMedium(
                    medium["kind"],
                    tuple(medium["grid"]),
                    tuple(medium["timestamps"]),
                    medium.get("seconds", 0.0),
                    tuple(medium.get("cuts", ())),
                    tuple(medium.get("changes", ())),
                    tuple((start, end) for start, end in medium.get("pauses", ())),
                )
                for medium in data["media"]
            ),
        )


@dataclass(frozen=True)
class Usage:
    """The cost of the answer, as the server counted it."""

    prompt_tokens: int = 0
    video_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    media: tuple[Medium, ...] = ()
    seconds: Mapping[str, float] | None = None
    """Seconds spent and waited in each stage, by dotted name: `total`, `preprocess.decode`, `encode.waited`, …"""
    token_ids: tuple[int, ...] | None = None
    """The answer's tokens, if `return_token_ids` asked for them."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Usage":
        """Reads the server's `usage`; keys that this version does not know are passed over."""
        media = tuple(
            Medium(medium["kind"], tuple(medium.get("grid", ())), tuple(medium.get("timestamps") or ()))
            for medium in data.get("media", ())
        )
        return cls(
            prompt_tokens=data.get("prompt_tokens", 0),
            video_tokens=data.get("video_tokens", 0),
            cached_tokens=data.get("cached_tokens", 0),
            completion_tokens=data.get("completion_tokens", 0),
            media=media,
            seconds=dict(_flat(data.get("seconds", {}))),
            token_ids=tuple(data["token_ids"]) if "token_ids" in data else None,
        )


@dataclass(frozen=True)
class Timings:
    """Seconds as this client measured them, all from the start of the request."""

    uploaded: float | None = None
    first_text: float | None = None
    total: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The whole answer. `finish_reason` is `stop`, `length`, `time_limit` or `cancelled`."""

    text: str
    finish_reason: str
    usage: Usage
    timings: Timings
    request_id: str


def _flat(seconds: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for key, value in seconds.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat.append((prefix + key, value))
    return flat
