"""The app: routes, errors, limits and what they share, put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic.json_schema import models_json_schema

from ..aio import AsyncClient
from ..connection import address
from ..summaries import sweep_journals
from ..uploads import Uploads
from . import chat, errors, events, files, models, operations, summaries
from .body_limit import BodyLimitMiddleware
from .chat_response import ChatCompletionChunk
from .engine_probe import EngineProbe
from .fetch import Fetcher
from .keys import ApiKeys
from .limits import RequestLimits
from .media_references import MediaReferences
from .metrics import Metrics, MetricsMiddleware
from .services import Services
from .settings import JOURNALS_FOLDER, UPLOADS_FOLDER, Settings

_SWEEP_SECONDS = 60.0


def create_app(settings: Settings, fetcher: Fetcher | None = None) -> FastAPI:
    """The API as an ASGI app; tests bring a `fetcher` of their own.

    Raises:
        ValueError: the address of Triton is none.
        OSError: a certificate cannot be read, or uploads cannot be kept below the media root.
    """
    triton = address(settings.url, settings.tls, None, settings.timeouts)
    metrics = Metrics()
    uploads = Uploads(
        settings.media_root / UPLOADS_FOLDER,
        quota_bytes=settings.upload_quota_bytes,
        capacity_bytes=settings.upload_capacity_bytes,
        expiry_seconds=settings.upload_expiry_seconds,
    )
    fetcher = fetcher or Fetcher(
        settings.allowed_hosts, max_bytes=settings.max_fetch_bytes, max_seconds=settings.max_fetch_seconds
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        probe = EngineProbe(triton)
        journals = uploads.folder / JOURNALS_FOLDER
        sweeping = asyncio.create_task(_sweep(uploads, journals))
        async with AsyncClient(settings.url, tls=settings.tls, timeouts=settings.timeouts) as client:
            app.state.services = Services(
                settings=settings,
                client=client,
                probe=probe,
                uploads=uploads,
                journals=journals,
                references=MediaReferences(settings.media_root, uploads, fetcher),
                keys=ApiKeys(settings.api_keys),
                limits=RequestLimits(settings.requests_per_minute, settings.concurrent_requests),
                metrics=metrics,
            )
            yield
        sweeping.cancel()
        await probe.close()

    app = FastAPI(
        title="Qwen3-VL on video",
        summary="An OpenAI-compatible API that answers questions about videos, images and text.",
        version=version("qwen3-vl-client"),
        lifespan=lifespan,
    )
    app.include_router(models.router)
    app.include_router(chat.router)
    app.include_router(summaries.router)
    app.include_router(files.router)
    app.include_router(operations.router)
    errors.install(app)
    app.add_middleware(
        BodyLimitMiddleware, max_bytes=settings.max_body_bytes, unlimited=app.url_path_for("upload_file")
    )
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    _describe_truthfully(app, settings.models)
    return app


def _describe_truthfully(app: FastAPI, names: Sequence[str]) -> None:
    """Puts into the OpenAPI description which models there are and what streams consist of, and takes from it
    the validation errors that FastAPI would answer: here they are 400."""
    generated = app.openapi
    streamed = (ChatCompletionChunk, *summaries.STREAMED)
    _, of_streams = models_json_schema(
        [(kind, "serialization") for kind in streamed], ref_template=f"{events.SCHEMAS}/{{model}}"
    )

    def openapi() -> dict[str, Any]:
        described = generated()
        schemas = described["components"]["schemas"]
        schemas.update(of_streams["$defs"])
        for request in ("ChatRequest", "SummaryRequest"):
            schemas[request]["properties"]["model"]["enum"] = list(names)
        for operations_of_path in described["paths"].values():
            for operation in operations_of_path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        return described

    app.openapi = openapi  # type: ignore[method-assign]


async def _sweep(uploads: Uploads, journals: Path) -> None:
    while True:
        await asyncio.to_thread(uploads.sweep)
        await asyncio.to_thread(sweep_journals, journals, uploads.expiry_seconds)
        await asyncio.sleep(_SWEEP_SECONDS)
