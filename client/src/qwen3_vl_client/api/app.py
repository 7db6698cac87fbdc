"""The app: routes, errors, limits and what they share, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic.json_schema import models_json_schema

from ..aio import AsyncClient
from ..connection import address
from ..front.bodies import HeldBodies
from ..front.headers import NOTHING, put_into_every_response
from ..front.hosts import HostsMiddleware
from ..front.parts import Places
from ..front.rates import RequestLimits
from ..front.secret import Secret
from ..front.sweeping import sweeping
from ..summaries import SummaryOptions, sweep_journals
from ..uploads import Uploads
from . import chat, errors, events, files, models, operations, summaries
from .chat_response import ChatCompletionChunk
from .engine_probe import EngineProbe
from .fetch import Fetcher
from .keys import ApiKeys, Guesses
from .media_references import MediaReferences
from .metrics import Metrics, MetricsMiddleware
from .services import Services
from .settings import JOURNALS_FOLDER, UPLOADS_FOLDER, Settings


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
        max_files=settings.upload_max_files,
        max_at_once=settings.uploads_at_once,
        min_free_bytes=settings.upload_free_bytes,
    )
    secret = Secret.load(uploads.folder)
    fetcher = fetcher or Fetcher(
        settings.allowed_hosts, max_bytes=settings.max_fetch_bytes, max_seconds=settings.max_fetch_seconds
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        probe = EngineProbe(triton)
        journals = uploads.folder / JOURNALS_FOLDER
        async with (
            sweeping(uploads.sweep, lambda: sweep_journals(journals, uploads.expiry_seconds)),
            AsyncClient(settings.url, tls=settings.tls, timeouts=settings.timeouts) as client,
        ):
            app.state.services = Services(
                settings=settings,
                client=client,
                secret=secret,
                probe=probe,
                uploads=uploads,
                journals=journals,
                references=MediaReferences(settings.media_root, uploads, fetcher),
                keys=ApiKeys(settings.api_keys),
                guesses=Guesses(settings.wrong_keys_per_minute),
                bodies=HeldBodies(settings.max_held_bytes),
                limits=RequestLimits(settings.requests_per_minute, settings.concurrent_requests),
                places=Places(SummaryOptions.in_flight),
                metrics=metrics,
            )
            yield
        await probe.close()

    app = FastAPI(
        title="Qwen3-VL on video",
        summary="An OpenAI-compatible API that answers questions about videos, images and text.",
        version=version("qwen3-vl-client"),
        lifespan=lifespan,
        # FastAPI's pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(models.router)
    app.include_router(chat.router)
    app.include_router(summaries.router)
    app.include_router(files.router)
    app.include_router(operations.router)
    errors.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(
        HostsMiddleware,
        hosts=settings.hosts,
        answer=errors.answer,
        origins=settings.cors_origins,
        probes=("/health", "/metrics"),
    )
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    put_into_every_response(app, NOTHING)
    _describe_truthfully(app, settings.models)
    return app


def _describe_truthfully(app: FastAPI, names: Sequence[str]) -> None:
    """Puts into the OpenAPI description which models there are, and what bodies and streams consist of, and takes from
    it the validation errors that FastAPI would answer: here they are 400."""
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
