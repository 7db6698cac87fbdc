"""Tells users apart by a cookie that this page has signed."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..front.rates import Rates, caller, too_many
from ..front.secret import Secret

_COOKIE = "owner"
_COOKIE_SECONDS = 30 * 24 * 3600
_MAX_COOKIE_CHARACTERS = 256
# Nothing but what this server sends is loaded or runs; what users upload is media only.
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Owners:
    """Middleware that sets `request.state.owner`, a name or why there is none.

    Whoever brings no cookie of this page is a new owner, of whom an address gets so many a minute: each may keep and
    ask as much as any. `public` is where everybody sees the same, and nobody needs a name.
    """

    def __init__(self, app: ASGIApp, secret: Secret, new_per_minute: int, public: str) -> None:
        self._app = app
        self._secret = secret
        self._new = Rates(new_per_minute)
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(self._public):
            await self._app(scope, receive, send)
            return
        is_secure = scope["scheme"] == "https"
        name = f"__Host-{_COOKIE}" if is_secure else _COOKIE
        random = self._random(HTTPConnection(scope).cookies.get(name, ""))
        cookie = None
        if random is None:
            if wait_seconds := self._new.take(caller(scope["client"])):
                what = f"more than {self._new.per_minute} new users per minute came from your address"
                scope.setdefault("state", {})["owner"] = too_many(what, "too_many_users", wait_seconds)
                await self._app(scope, receive, send)
                return
            random = secrets.token_urlsafe(32)
            cookie = (
                f"{name}={random}.{self._signature(random)}; Max-Age={_COOKIE_SECONDS}; Path=/; HttpOnly;"
                f" SameSite=Strict{'; Secure' if is_secure else ''}"
            )
        scope.setdefault("state", {})["owner"] = f"page-{sha256(random.encode()).hexdigest()[:32]}"

        async def send_with_cookie(message: Message) -> None:
            if cookie is not None and message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        await self._app(scope, receive, send_with_cookie)

    def _random(self, cookie: str) -> str | None:
        """What this page signed; None: it signed nothing of that."""
        if len(cookie) > _MAX_COOKIE_CHARACTERS or not cookie.isascii():
            return None
        random, _, signature = cookie.partition(".")
        return random if hmac.compare_digest(signature, self._signature(random)) else None

    def _signature(self, random: str) -> str:
        return self._secret.derive("cookie", random)
