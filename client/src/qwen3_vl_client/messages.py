"""A conversation in OpenAI's format with media given in place; the server wants them apart, referred to by index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequest
from .media import Media


@dataclass(frozen=True)
class Conversation:
    """`messages` as the server reads them, and what they refer to by index: videos, then uris; images."""

    messages: list[dict[str, Any]]
    videos: list[Media] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    """Only those with subtitles; others stand in the messages."""
    images: list[Media] = field(default_factory=list)
    video_subtitles: list[Media | None] = field(default_factory=list)
    uri_subtitles: list[Media | None] = field(default_factory=list)

    @property
    def subtitles(self) -> list[Media | None]:
        """One for each video, then for each uri; None for one without."""
        return [*self.video_subtitles, *self.uri_subtitles]


def convert(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Takes the media out of the messages' parts.

    A part is `{"type": "text", "text": …}`, `{"type": "video", "video": path or bytes}`, the same with `image`, or
    `{"type": "video", "uri": …}` for a path below the server's media root. A video part may have `subtitles`, a path or
    bytes. Content may also be a plain string.

    Raises:
        InvalidRequest: a message or part has another form.
    """
    conversation = Conversation([])
    if not messages:
        raise InvalidRequest("messages is empty; at least one message is accepted")
    for number, message in enumerate(messages):
        _check_keys(f"messages[{number}]", message, {"role", "content"})
    # The server counts uris after the uploaded videos.
    uploaded = sum(
        part.get("type") == "video" and "video" in part
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
    )
    for number, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str):
            content = [
                _part(f"messages[{number}].content[{index}]", part, conversation, uploaded)
                for index, part in enumerate(content)
            ]
        conversation.messages.append({"role": message["role"], "content": content})
    return conversation


def _part(where: str, part: Mapping[str, Any], conversation: Conversation, uploaded: int) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        _check_keys(where, part, {"type", "text"})
        return dict(part)
    if kind not in ("video", "image"):
        raise InvalidRequest(f"{where}.type is {kind!r}; 'text', 'video' and 'image' are accepted")
    named = {"type", "uri" if "uri" in part else kind}
    subtitles = part.get("subtitles") if kind == "video" else None
    _check_keys(where, part, named if subtitles is None else {*named, "subtitles"})
    if "uri" in part and subtitles is None:
        return {"type": kind, kind: part["uri"]}
    if "uri" in part:
        conversation.uris.append(part["uri"])
        conversation.uri_subtitles.append(subtitles)
        return {"type": kind, kind: uploaded + len(conversation.uris) - 1}
    if kind == "image":
        conversation.images.append(part[kind])
        return {"type": kind, kind: len(conversation.images) - 1}
    conversation.videos.append(part[kind])
    conversation.video_subtitles.append(subtitles)
    return {"type": kind, kind: len(conversation.videos) - 1}


def _check_keys(where: str, mapping: Mapping[str, Any], accepted: set[str]) -> None:
    if mapping.keys() != accepted:
        raise InvalidRequest(f"{where} has the keys {sorted(mapping)}; exactly {sorted(accepted)} are accepted")
