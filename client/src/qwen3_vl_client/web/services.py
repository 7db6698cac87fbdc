"""What the routes of the page share, and whose a request is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from ..aio import AsyncClient
from ..front.bodies import HeldBodies, read_json
from ..front.parts import Places
from ..front.rates import Rates, RequestLimits
from ..front.refusals import RefusedError
from ..front.secret import Secret
from ..uploads import StoredFile, Uploads
from .pictures import Pictures
from .settings import Settings

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Services:
    """What all requests use."""

    settings: Settings
    client: AsyncClient
    """Nobody's own: requests are sent by the user's `Asker`."""
    secret: Secret
    uploads: Uploads
    pictures: Pictures
    limits: RequestLimits
    views: Rates
    """Pictures and contents: a page that is used asks for many."""
    places: Places
    bodies: HeldBodies

    def uri(self, stored: StoredFile) -> str:
        """As Triton finds it below its media root."""
        return str(stored.path.relative_to(self.settings.media_root.resolve()))


def _services(request: Request) -> Services:
    shared: Services = request.app.state.shared
    return shared


def _owner(request: Request) -> str:
    owner: str | RefusedError = request.state.owner
    if isinstance(owner, RefusedError):
        raise owner
    return owner


Shared = Annotated[Services, Depends(_services)]
Owner = Annotated[str, Depends(_owner)]


def _counted(shared: Shared, owner: Owner) -> str:
    shared.limits.count(owner)
    return owner


CountedOwner = Annotated[str, Depends(_counted)]
"""Of a request that counts against the owner's limit per minute."""


def _viewer(shared: Shared, owner: Owner) -> str:
    shared.views.count(owner)
    return owner


Viewer = Annotated[str, Depends(_viewer)]
"""Whose picture or content is asked for, which counts against a limit of its own."""


def _asker(shared: Shared, owner: Owner) -> AsyncClient:
    return shared.client.salted("" if shared.settings.share_cache else shared.secret.derive("cache", owner))


Asker = Annotated[AsyncClient, Depends(_asker)]
"""Sends the owner's requests: what the server remembers of them serves no other owner."""


async def _resources() -> AsyncIterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as resources:
        yield resources


Resources = Annotated[contextlib.ExitStack, Depends(_resources)]
"""What is held until the response was sent, or its client has gone."""


async def _stored(file_id: str, shared: Shared, owner: CountedOwner) -> StoredFile:
    return await asyncio.to_thread(shared.uploads.find, owner, file_id)


Stored = Annotated[StoredFile, Depends(_stored)]
"""The owner's file that the path names. It is looked up once the request was counted."""


async def _viewed(file_id: str, shared: Shared, viewer: Viewer) -> StoredFile:
    return await asyncio.to_thread(shared.uploads.find, viewer, file_id)


Viewed = Annotated[StoredFile, Depends(_viewed)]
"""The same, of a request for a picture or content."""


def json_body(model: type[Model]) -> Callable[..., Awaitable[Model]]:
    """A dependency: the body of a request that runs, which is read within bounds."""

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
        )

    return read
