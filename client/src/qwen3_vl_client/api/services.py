"""What the routes of one app share, and who is asking."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from ..aio import AsyncClient
from ..front.bodies import HeldBodies, read_json
from ..front.parts import Places
from ..front.rates import RequestLimits, caller
from ..front.secret import Secret
from ..uploads import Uploads
from .engine_probe import EngineProbe
from .errors import ApiError
from .events import SCHEMAS
from .keys import ApiKeys, Guesses
from .media_references import MediaReferences
from .metrics import Metrics
from .settings import Settings

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Services:
    settings: Settings
    client: AsyncClient
    """Nobody's own: requests are sent by the caller's `Asker`."""
    secret: Secret
    probe: EngineProbe
    uploads: Uploads
    journals: Path
    """What is known of the parts of long videos, in a folder for each owner."""
    references: MediaReferences
    keys: ApiKeys
    guesses: Guesses
    limits: RequestLimits
    places: Places
    bodies: HeldBodies
    metrics: Metrics


def _services(request: Request) -> Services:
    return request.app.state.services


Shared = Annotated[Services, Depends(_services)]


def _owner(
    request: Request,
    shared: Shared,
    credentials: Annotated[
        HTTPAuthorizationCredentials | None,
        Depends(HTTPBearer(auto_error=False, description="An API key, if the operator gave out any.")),
    ],
) -> str:
    owner = shared.keys.owner(None if credentials is None else credentials.credentials)
    if credentials is not None and shared.settings.api_keys:
        shared.guesses.note(caller(request.client), owner)
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


def _asker(shared: Shared, owner: Owner) -> AsyncClient:
    shares = shared.settings.share_cache or not shared.settings.api_keys
    return shared.client.salted("" if shares else shared.secret.derive("cache", owner))


Asker = Annotated[AsyncClient, Depends(_asker)]
"""Sends the owner's requests: what the server remembers of them serves no other owner."""


async def _resources() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as resources:
        yield resources


Resources = Annotated[AsyncExitStack, Depends(_resources)]
"""What lives until the response was sent, or its client has gone."""


def json_body(model: type[Model]) -> Callable[..., Awaitable[Model]]:
    """A dependency: the body of a request that runs, which is read only of those who may ask, within bounds.

    FastAPI's own would be read and parsed before the key is looked at.
    """

    async def read(request: Request, shared: Shared, owner: CountedOwner, resources: Resources) -> Model:
        # Who waits for a body holds a place like who waits for an answer.
        resources.enter_context(shared.limits.running(owner))
        return await read_json(
            request.stream(),
            request.headers,
            model,
            max_bytes=shared.settings.max_body_bytes,
            max_values=shared.settings.max_body_values,
            holding=resources.enter_context(shared.bodies.holding(owner)),
            hint="upload large media to /v1/files and name them by id",
        )

    return read


def described_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route with such a body; the model itself is among the app's schemas."""
    schema = {"$ref": f"{SCHEMAS}/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
