"""Puts the application together: routes, errors, limits and the services that they share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from ..connection import address
from . import errors
from .cookies import Users, is_page
from .http.headers import put_into_every_response
from .http.hosts import HostsMiddleware
from .media.fetch import Fetcher
from .metrics import Metrics, MetricsMiddleware
from .openai import chat, files, models, operations, summaries
from .openai.description import describe_truthfully
from .page import routes as page
from .secret import Secret
from .services import open_uploads, started
from .settings import Settings

_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# A browser loads and runs nothing but what this server sends; what users upload is media only.
_PAGE_HEADERS = {
    **_HEADERS,
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class _ApiCors(CORSMiddleware):
    """Lets pages of other origins call the API; the page's own paths are not for them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_page(scope["path"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings, fetcher: Fetcher | None = None) -> FastAPI:
    """The ASGI app; tests bring a `fetcher` of their own.

    Raises:
        ValueError: the address of Triton is not `host:port`.
        OSError: a certificate cannot be read, or uploads cannot be kept below the media root.
    """
    address(settings.url, settings.tls, None, settings.timeouts)
    metrics = Metrics()
    uploads = open_uploads(settings)
    secret = Secret.load(uploads.folder)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with started(settings, uploads, secret, metrics, fetcher) as app.state.services:
            yield

    app = FastAPI(
        title="Qwen3-VL on video",
        summary="An OpenAI-compatible API that answers questions about videos, images and text.",
        version=version("qwen3-vl-client"),
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.api else None,
        # FastAPI's pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    if settings.api:
        for router in (models.router, chat.router, summaries.router, files.router, operations.router):
            app.include_router(router)
        describe_truthfully(app, settings.models)
    if settings.serves_page:
        app.include_router(page.router, include_in_schema=False)
        app.mount("/static", StaticFiles(directory=page.STATIC), name="static")
        app.add_middleware(Users, secret=secret, new_per_minute=settings.new_users_per_minute)
    if settings.cors_origins:
        app.add_middleware(
            _ApiCors,
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
        own_only=is_page,
        probes=("/health", "/metrics"),
    )
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    put_into_every_response(app, lambda path: _PAGE_HEADERS if is_page(path) else _HEADERS)
    return app
