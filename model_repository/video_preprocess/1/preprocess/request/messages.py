"""The conversation: messages of text parts and attached media, in OpenAI's chat format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from preprocess.errors import InvalidArgumentError, shown
from preprocess.media.attachment import Attachment, Kind

ROLES = ("system", "user", "assistant")
MAX_PARTS = 4096
"""Messages and their parts together."""


@dataclass(frozen=True)
class Attachments:
    """The media that came with a request, by index: videos are those of `video`, then those of `video_uri`."""

    videos: tuple[Attachment, ...]
    images: tuple[Attachment, ...]


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Message:
    role: str
    parts: tuple[Text | Attachment, ...]


def attach(
    videos: Sequence[bytes], video_uris: Sequence[str], images: Sequence[bytes], subtitles: Sequence[bytes]
) -> Attachments:
    """Raises InvalidArgumentError for more subtitles than videos."""
    sources: list[tuple[str, bytes | str]] = [(f"video[{index}]", content) for index, content in enumerate(videos)]
    sources += [(f"video_uri[{index}]", uri) for index, uri in enumerate(video_uris)]
    if len(subtitles) > len(sources):
        raise InvalidArgumentError(
            f"{len(subtitles)} subtitles are attached to {len(sources)} videos; one each is accepted"
        )
    return Attachments(
        videos=tuple(
            Attachment("video", name, source, lines or None)
            for (name, source), lines in zip_longest(sources, subtitles)
        ),
        images=tuple(Attachment("image", f"image[{index}]", content) for index, content in enumerate(images)),
    )


def question(text: str, attachments: Attachments) -> tuple[Message, ...]:
    """One user turn: videos, images, then the text."""
    return (Message("user", (*attachments.videos, *attachments.images, Text(text))),)


def parse_messages(messages: Any, attachments: Attachments) -> tuple[Message, ...]:
    """Checks a JSON value in OpenAI's chat format and puts the attachments where its parts refer to them.

    Raises InvalidArgumentError for anything unknown, and unless every attachment is used exactly once.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidArgumentError("messages is accepted as a list of at least one {role, content}")
    parts = len(messages) + sum(_parts(message) for message in messages)
    if parts > MAX_PARTS:
        raise InvalidArgumentError(
            f"messages has {parts} messages and parts of messages; at most {MAX_PARTS} are accepted"
        )
    parsed = tuple(_parse_message(message, f"messages[{i}]", i, attachments) for i, message in enumerate(messages))
    used = Counter(part.name for message in parsed for part in message.parts if isinstance(part, Attachment))
    for attachment in (*attachments.videos, *attachments.images):
        count = used[attachment.name]
        if count != 1:
            raise InvalidArgumentError(
                f"the attachment {attachment.name} is referred to {count} times in messages; once is accepted"
            )
    return parsed


def _parts(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    return len(content) if isinstance(content, list) else 0


def _parse_message(message: Any, where: str, index: int, attachments: Attachments) -> Message:
    _check_keys(message, where, ("role", "content"))
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise InvalidArgumentError(f"{where}.role is {shown(role)}; accepted are {', '.join(ROLES)}")
    if role == "system" and index > 0:
        raise InvalidArgumentError(f"{where}.role is 'system'; accepted for the first message only")
    if isinstance(content, str):
        return Message(role, (Text(content),))
    if not isinstance(content, list):
        raise InvalidArgumentError(f"{where}.content is accepted as a string or a list of parts")
    parts = tuple(_parse_part(part, f"{where}.content[{i}]", attachments) for i, part in enumerate(content))
    if role != "user" and any(isinstance(part, Attachment) for part in parts):
        raise InvalidArgumentError(
            f"{where} has the role {shown(role)} and a video or an image; accepted in user messages only"
        )
    return Message(role, parts)


def _parse_part(part: Any, where: str, attachments: Attachments) -> Text | Attachment:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        _check_keys(part, where, ("type", "text"))
        if not isinstance(part["text"], str):
            raise InvalidArgumentError(f"{where}.text is {shown(part['text'])}; a string is accepted")
        return Text(part["text"])
    if kind in ("video", "image"):
        _check_keys(part, where, ("type", kind))
        return _refer(kind, part[kind], f"{where}.{kind}", attachments)
    raise InvalidArgumentError(f"{where}.type is {shown(kind)}; accepted are text, video, image")


def _refer(kind: Kind, reference: Any, where: str, attachments: Attachments) -> Attachment:
    known = attachments.videos if kind == "video" else attachments.images
    if isinstance(reference, str):
        return Attachment(kind, where, reference)
    if isinstance(reference, int) and not isinstance(reference, bool) and 0 <= reference < len(known):
        return known[reference]
    raise InvalidArgumentError(
        f"{where} is {shown(reference)}; a path below the media root or the index of an attachment is accepted,"
        f" and {len(known)} {kind}s are attached"
    )


def _check_keys(value: Any, where: str, keys: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{where} is {shown(value)}; an object with {', '.join(keys)} is accepted")
    for key in value:
        if key not in keys:
            raise InvalidArgumentError(f"{where} has the unknown key {shown(key)}; accepted are {', '.join(keys)}")
    for key in keys:
        if key not in value:
            raise InvalidArgumentError(f"{where} lacks the key {key!r}")
