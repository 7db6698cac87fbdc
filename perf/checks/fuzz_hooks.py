"""Tells Schemathesis what it cannot know: answers may be short, and there are these media."""

from __future__ import annotations

from typing import Any

import schemathesis

_MEDIA = {"video_url": "clips/clip.mp4", "image_url": "clips/picture.png"}
_GENERATING = ("/v1/chat/completions", "/v1/summaries")
_LIMITS = ("max_tokens", "max_completion_tokens")
_SHORT = 4


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Shortens what may be long, and names media that exist in every other part; what is wrong stays wrong."""
    body = case.body
    if case.path not in _GENERATING or not isinstance(body, dict):
        return
    for name in _LIMITS:
        if type(body.get(name)) is int and _SHORT < body[name] < 2**31:
            body[name] = _SHORT
    if all(body.get(name) is None for name in _LIMITS):
        body["max_tokens"] = _SHORT
    if body.get("long_video") == "always":
        body["long_video"] = "auto"
    if isinstance(body.get("video"), str) and len(body["video"]) % 2 == 0:
        body["video"] = _MEDIA["video_url"]
    for part in _parts(body):
        for kind, path in _MEDIA.items():
            reference = part.get(kind)
            if isinstance(reference, dict) and isinstance(reference.get("url"), str) and len(reference["url"]) % 2 == 0:
                reference["url"] = path


def _parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    contents = (
        [message.get("content") for message in messages if isinstance(message, dict)]
        if isinstance(messages, list)
        else []
    )
    return [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
