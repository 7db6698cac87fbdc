"""Headers that tell a browser how it may use a response."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadersMiddleware:
    """Puts headers into every response, those of errors too; `headers_of` gives those of a path."""

    def __init__(self, app: ASGIApp, headers_of: Callable[[str], Mapping[str, str]]) -> None:
        self._app = app
        self._headers_of = headers_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers_of(scope["path"]))
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def put_into_every_response(app: Starlette, headers_of: Callable[[str], Mapping[str, str]]) -> None:
    """Middleware that is added to an app does not see the response to an error that nobody expected; this does."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: HeadersMiddleware(build(), headers_of)  # type: ignore[method-assign]
