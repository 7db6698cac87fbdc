"""Tells users apart by a cookie that holds a secret, and says with every response what a browser may do with it."""

from __future__ import annotations

import secrets
from hashlib import sha256

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "owner"
_COOKIE_SECONDS = 30 * 24 * 3600
_SECRET_CHARACTERS = 43
# Nothing but what this server sends is loaded or runs; what users upload is media only.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Owners:
    """Middleware that sets `request.state.owner`; who brings no secret is given one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        secret = HTTPConnection(scope).cookies.get(_COOKIE, "")
        known = len(secret) == _SECRET_CHARACTERS
        if not known:
            secret = secrets.token_urlsafe(32)
        scope.setdefault("state", {})["owner"] = f"page-{sha256(secret.encode()).hexdigest()[:32]}"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if not known:
                    headers.append(
                        "set-cookie",
                        f"{_COOKIE}={secret}; Max-Age={_COOKIE_SECONDS}; Path=/; HttpOnly; SameSite=Strict",
                    )
            await send(message)

        await self._app(scope, receive, send_with_headers)
