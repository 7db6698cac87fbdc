"""Whose a request is, and how much this owner may ask.

Each request has one owner: on the page's paths the user whom the cookie names, elsewhere the owner of the API key, or
`anonymous` where no keys are given out. A key opens nothing on the page, and a cookie nothing at the API.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ..aio import AsyncClient
from .cookies import is_page
from .http.rates import RequestLimits, caller
from .http.refusals import RefusedError
from .services import Services, Shared


def _owner(
    request: Request,
    shared: Shared,
    credentials: Annotated[
        HTTPAuthorizationCredentials | None,
        Depends(HTTPBearer(auto_error=False, description="An API key, if the operator gave out any.")),
    ],
) -> str:
    if is_page(request.scope["path"]):
        user: str | RefusedError = request.state.user
        if isinstance(user, RefusedError):
            raise user
        return user
    owner = shared.keys.owner(None if credentials is None else credentials.credentials)
    if credentials is not None and shared.settings.api_keys:
        shared.guesses.note(caller(request.client), owner)
    if owner is None:
        raise RefusedError(
            HTTPStatus.UNAUTHORIZED,
            "the API key is missing or unknown; Authorization: Bearer KEY is accepted",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    return owner


Owner = Annotated[str, Depends(_owner)]
"""Whose request this is; 401 at the API without a key that is known, 429 on the page for one new user too many."""


def limits(request: Request, shared: Services) -> RequestLimits:
    """Those of the page, or of the API."""
    return shared.page_limits if is_page(request.scope["path"]) else shared.limits


def _counted(request: Request, shared: Shared, owner: Owner) -> str:
    limits(request, shared).count(owner)
    return owner


CountedOwner = Annotated[str, Depends(_counted)]
"""The owner of a request that counts against the limit per minute."""


def _viewer(shared: Shared, owner: Owner) -> str:
    shared.views.count(owner)
    return owner


Viewer = Annotated[str, Depends(_viewer)]
"""The owner of a request for a picture or content on the page, which counts against a limit of its own."""


def _asker(request: Request, shared: Shared, owner: Owner) -> AsyncClient:
    # Without keys all who call the API are one owner; the page still tells its users apart.
    is_common = not (shared.settings.api_keys or is_page(request.scope["path"]))
    shares = shared.settings.share_cache or is_common
    return shared.client.salted("" if shares else shared.secret.derive("cache", owner))


Asker = Annotated[AsyncClient, Depends(_asker)]
"""Sends the owner's requests: what the server remembers of them serves no other owner."""
