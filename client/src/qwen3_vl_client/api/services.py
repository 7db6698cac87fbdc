"""What the routes of one app share, and who is asking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ..aio import AsyncClient
from ..uploads import Uploads
from .engine_probe import EngineProbe
from .errors import ApiError
from .keys import ApiKeys
from .limits import RequestLimits
from .media_references import MediaReferences
from .metrics import Metrics
from .settings import Settings


@dataclass(frozen=True)
class Services:
    settings: Settings
    client: AsyncClient
    probe: EngineProbe
    uploads: Uploads
    journals: Path
    """What is known of the parts of long videos, in a folder for each owner."""
    references: MediaReferences
    keys: ApiKeys
    limits: RequestLimits
    metrics: Metrics


def _services(request: Request) -> Services:
    return request.app.state.services


Shared = Annotated[Services, Depends(_services)]


def _owner(
    shared: Shared,
    credentials: Annotated[
        HTTPAuthorizationCredentials | None,
        Depends(HTTPBearer(auto_error=False, description="An API key, if the operator gave out any.")),
    ],
) -> str:
    owner = shared.keys.owner(None if credentials is None else credentials.credentials)
    if owner is None:
        raise ApiError(
            HTTPStatus.UNAUTHORIZED,
            "the API key is missing or unknown; Authorization: Bearer KEY is accepted",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    return owner


Owner = Annotated[str, Depends(_owner)]
"""Whose request this is; 401 without a key that is known."""


def _counted(shared: Shared, owner: Owner) -> str:
    shared.limits.count(owner)
    return owner


CountedOwner = Annotated[str, Depends(_counted)]
"""The same, of a request that counts against the owner's limit per minute."""


async def _resources() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as resources:
        yield resources


Resources = Annotated[AsyncExitStack, Depends(_resources)]
"""What lives until the response was sent, or its client has gone."""
