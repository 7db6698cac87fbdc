"""A request, checked: what is asked, about which media, and how the videos are looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preprocess.errors import InvalidArgumentError, shown
from preprocess.media.attachment import Attachment
from preprocess.request.messages import Message, Text, attach, parse_messages, question
from preprocess.request.options import VideoOptions, parse_video_options

MAX_SALT_CHARACTERS = 128


@dataclass(frozen=True)
class Limits:
    """Bounds on what a request may carry."""

    max_attachments: int
    max_text_bytes: int = 4 << 20
    """All texts together: the question, messages and options."""


@dataclass(frozen=True)
class Inputs:
    """The stage's inputs as they come: JSON not parsed, nothing checked."""

    text: str | None = None
    messages: str | None = None
    videos: Sequence[bytes] = ()
    video_uris: Sequence[str] = ()
    images: Sequence[bytes] = ()
    subtitles: Sequence[bytes] = ()
    video_options: str | None = None
    sampling_parameters: str | None = None
    stream: bool = True
    progress: object = False
    look: object = False
    """Only tell what would be looked at."""
    cache_salt: object = ""
    """The owner of the request; empty: everybody."""


@dataclass(frozen=True)
class Request:
    messages: tuple[Message, ...]
    video_options: VideoOptions
    sampling_parameters: str
    """JSON object, not looked into: stage 3 checks it."""
    stream: bool
    progress: bool
    look: bool
    cache_salt: str

    @property
    def media(self) -> tuple[Attachment, ...]:
        """In the order in which the prompt shows them."""
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, Attachment))

    @property
    def question(self) -> str:
        """The words of the user, all turns together."""
        parts = [part for message in self.messages if message.role == "user" for part in message.parts]
        return "\n".join(part.text for part in parts if isinstance(part, Text))


def parse_request(inputs: Inputs, limits: Limits) -> Request:
    """Checks `inputs`; raises InvalidArgumentError with the name of the input that is wrong."""
    attachments = attach(inputs.videos, inputs.video_uris, inputs.images, inputs.subtitles)
    if inputs.messages is not None:
        if inputs.text is not None:
            raise InvalidArgumentError("both text_input and messages are given; one of them is accepted")
        messages = parse_messages(parse_json(inputs.messages, "messages"), attachments)
    elif inputs.text is not None:
        messages = question(inputs.text, attachments)
    else:
        raise InvalidArgumentError("neither text_input nor messages is given; one of them is required")
    options = parse_json(inputs.video_options or "{}", "video_options")
    request = Request(
        messages=messages,
        video_options=parse_video_options(options),
        sampling_parameters=inputs.sampling_parameters or "{}",
        stream=inputs.stream,
        progress=_boolean(inputs.progress, "progress"),
        look=_boolean(inputs.look, "look"),
        cache_salt=_cache_salt(inputs.cache_salt),
    )
    if len(request.media) > limits.max_attachments:
        raise InvalidArgumentError(
            f"{len(request.media)} videos and images are attached; at most {limits.max_attachments} are accepted"
        )
    return request


def parse_json(text: str, name: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{name} is not JSON: {error}") from None
    if "\\u" in text:
        _check_encodable(json.dumps(value, ensure_ascii=False), name)
    return value


def _boolean(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"the request parameter {name} is {shown(value)}; true or false is accepted")
    return value


def _cache_salt(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"the request parameter cache_salt is {shown(value)}; a string is accepted")
    if len(value) > MAX_SALT_CHARACTERS:
        raise InvalidArgumentError(
            f"the request parameter cache_salt has {len(value)} characters; at most {MAX_SALT_CHARACTERS} are accepted"
        )
    _check_encodable(value, "the request parameter cache_salt")
    return value


def _check_encodable(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise InvalidArgumentError(
            f"{name} has {half!r}, half of a surrogate pair; whole characters are accepted"
        ) from None
