"""Server-sent events, as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

DONE = "data: [DONE]\n\n"
MEDIA_TYPE = "text/event-stream"
# Proxies are asked not to hold events back.
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
SCHEMAS = "#/components/schemas"


def event(data: BaseModel) -> str:
    """An event that says `data` as JSON."""
    return f"data: {data.model_dump_json()}\n\n"


def comment(text: str) -> str:
    """What keeps a connection alive, and is no event."""
    return f": {text}\n\n"


def described(*kinds: str) -> dict[str, Any]:
    """The OpenAPI `content` of a stream, whose events are schemas of these names and last `[DONE]`."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [{"$ref": f"{SCHEMAS}/{kind}"} for kind in kinds]},
    }
    schema = {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"anyOf": [data, {"const": "[DONE]"}]}},
    }
    return {MEDIA_TYPE: {"schema": schema}}


def described_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route with such a body; the model itself is among the app's schemas."""
    schema = {"$ref": f"{SCHEMAS}/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
