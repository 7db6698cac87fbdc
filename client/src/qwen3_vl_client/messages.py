"""A conversation in OpenAI's format with media given in place; the server wants them apart, referred to by index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequest
from .media import Media


@dataclass(frozen=True)
class Conversation:
    """`messages` as the server reads them, and what they refer to by index."""

    messages: list[dict[str, Any]]
    videos: list[Media] = field(default_factory=list)
    images: list[Media] = field(default_factory=list)


def convert(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Takes the media out of the messages' parts.

    A part is `{"type": "text", "text": …}`, `{"type": "video", "video": path or bytes}`, the same with `image`, or
    `{"type": "video", "uri": …}` for a path below the server's media root. Content may also be a plain string.

    Raises:
        InvalidRequest: a message or part has another form.
    """
    conversation = Conversation([])
    if not messages:
        raise InvalidRequest("messages is empty; at least one message is accepted")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        _check_keys(where, message, {"role", "content"})
        content = message["content"]
        if not isinstance(content, str):
            content = [_part(f"{where}.content[{i}]", part, conversation) for i, part in enumerate(content)]
        conversation.messages.append({"role": message["role"], "content": content})
    return conversation


def _part(where: str, part: Mapping[str, Any], conversation: Conversation) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        _check_keys(where, part, {"type", "text"})
        return dict(part)
    if kind not in ("video", "image"):
        raise InvalidRequest(f"{where}.type is {kind!r}; 'text', 'video' and 'image' are accepted")
    if "uri" in part:
        _check_keys(where, part, {"type", "uri"})
        return {"type": kind, kind: part["uri"]}
    _check_keys(where, part, {"type", kind})
    attachments = conversation.videos if kind == "video" else conversation.images
    attachments.append(part[kind])
    return {"type": kind, kind: len(attachments) - 1}


def _check_keys(where: str, mapping: Mapping[str, Any], accepted: set[str]) -> None:
    if mapping.keys() != accepted:
        raise InvalidRequest(f"{where} has the keys {sorted(mapping)}; exactly {sorted(accepted)} are accepted")
