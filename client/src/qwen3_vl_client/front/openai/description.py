"""The OpenAPI description: the models that there are, and the schemas of bodies and streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from . import chat, events, summaries
from .chat_response import ChatCompletionChunk


def describe_truthfully(app: FastAPI, names: Sequence[str]) -> None:
    """Adds to `app`'s description the models' names and the schemas of bodies and streams, and takes from it the
    validation errors that FastAPI would answer: here they are 400."""
    generated = app.openapi
    told = (ChatCompletionChunk, *summaries.STREAMED)
    asked = (chat.ChatRequest, summaries.SummaryRequest)
    _, more = models_json_schema(
        [*((kind, "serialization") for kind in told), *((kind, "validation") for kind in asked)],
        ref_template=f"{events.SCHEMAS}/{{model}}",
    )

    def openapi() -> dict[str, Any]:
        described = generated()
        schemas = described["components"]["schemas"]
        schemas.update(more["$defs"])
        for request in asked:
            schemas[request.__name__]["properties"]["model"]["enum"] = list(names)
        for operations_of_path in described["paths"].values():
            for operation in operations_of_path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        return described

    app.openapi = openapi  # type: ignore[method-assign]
