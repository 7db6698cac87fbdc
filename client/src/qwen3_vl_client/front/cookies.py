"""Tells the page's users apart by a cookie that this server has signed, on the paths that belong to the page."""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .http.rates import Rates, caller, too_many
from .secret import Secret

_COOKIE = "owner"
_COOKIE_SECONDS = 30 * 24 * 3600
_MAX_COOKIE_CHARACTERS = 256
_PUBLIC = "/static/"
"""Below it everybody sees the same: nobody needs a name."""
_PAGE = re.compile(r"/|/(?:static|files|ask|summarize)(?:/.*)?", re.DOTALL)


def is_page(path: str) -> bool:
    """Whether a path is one of the page's; every other path is the API's."""
    return _PAGE.fullmatch(path) is not None


class Users:
    """Middleware that sets `request.state.user` on the page's paths: a name, or why there is none.

    A request without a cookie of this server is a new user's, of whom an address gets so many a minute: each may keep
    and ask as much as any.
    """

    def __init__(self, app: ASGIApp, secret: Secret, new_per_minute: int) -> None:
        self._app = app
        self._secret = secret
        self._new = Rates(new_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_page(scope["path"]) or scope["path"].startswith(_PUBLIC):
            await self._app(scope, receive, send)
            return
        is_secure = scope["scheme"] == "https"
        name = f"__Host-{_COOKIE}" if is_secure else _COOKIE
        random = self._random(HTTPConnection(scope).cookies.get(name, ""))
        cookie = None
        if random is None:
            if wait_seconds := self._new.take(caller(scope["client"])):
                what = f"more than {self._new.per_minute} new users per minute came from your address"
                scope.setdefault("state", {})["user"] = too_many(what, "too_many_users", wait_seconds)
                await self._app(scope, receive, send)
                return
            random = secrets.token_urlsafe(32)
            cookie = (
                f"{name}={random}.{self._signature(random)}; Max-Age={_COOKIE_SECONDS}; Path=/; HttpOnly;"
                f" SameSite=Strict{'; Secure' if is_secure else ''}"
            )
        scope.setdefault("state", {})["user"] = f"page-{sha256(random.encode()).hexdigest()[:32]}"

        async def send_with_cookie(message: Message) -> None:
            if cookie is not None and message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        await self._app(scope, receive, send_with_cookie)

    def _random(self, cookie: str) -> str | None:
        """The part that this server signed; None: it signed nothing of that."""
        if len(cookie) > _MAX_COOKIE_CHARACTERS or not cookie.isascii():
            return None
        random, _, signature = cookie.partition(".")
        return random if hmac.compare_digest(signature, self._signature(random)) else None

    def _signature(self, random: str) -> str:
        return self._secret.derive("cookie", random)
