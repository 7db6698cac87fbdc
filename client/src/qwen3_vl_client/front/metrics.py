"""Counters that an operator watches, in Prometheus' format."""

from __future__ import annotations

import time
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..results import Answer

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """The counters of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "qwen3_vl_api_requests", "HTTP requests by route and status", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "qwen3_vl_api_request_seconds",
            "Seconds from a request's head to its answer's end",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.running = Gauge("qwen3_vl_api_requests_running", "HTTP requests that run now", registry=self._registry)
        self.first_text_seconds = Histogram(
            "qwen3_vl_api_first_text_seconds",
            "Seconds until an answer's first text",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.tokens = Counter("qwen3_vl_api_tokens", "Tokens by kind", ["kind"], registry=self._registry)
        self.uploaded_bytes = Counter("qwen3_vl_api_uploaded_bytes", "Bytes of files", registry=self._registry)

    def answered(self, answer: Answer) -> None:
        """Counts an answer's tokens, and how long its first text took."""
        usage = answer.usage
        for kind in ("prompt", "video", "cached", "completion"):
            self.tokens.labels(kind).inc(getattr(usage, f"{kind}_tokens"))
        if answer.timings.first_text is not None:
            self.first_text_seconds.observe(answer.timings.first_text)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class MetricsMiddleware:
    """Counts every HTTP request when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.running.inc()
        try:
            await self._app(scope, receive, watched)
        finally:
            # The route's own path: what users make up does not become a label.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.running.dec()
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)
