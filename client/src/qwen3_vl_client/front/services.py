"""Everything that all requests use, and what one request holds until it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from ..aio import AsyncClient
from ..connection import address
from ..engine_probe import EngineProbe
from ..summaries import sweep_journals
from ..uploads import StoredFile, Uploads
from .http.bodies import HeldBodies
from .http.rates import Rates, RequestLimits
from .http.sweeping import sweeping
from .keys import ApiKeys, Guesses
from .media.fetch import Fetcher
from .media.pictures import Pictures
from .media.references import MediaReferences
from .metrics import Metrics
from .places import Places
from .secret import Secret
from .settings import Settings


@dataclass(frozen=True)
class Services:
    settings: Settings
    client: AsyncClient
    """Nobody's own: requests are sent by an owner's `Asker`."""
    secret: Secret
    probe: EngineProbe
    uploads: Uploads
    references: MediaReferences
    pictures: Pictures
    keys: ApiKeys
    guesses: Guesses
    limits: RequestLimits
    page_limits: RequestLimits
    views: Rates
    """Pictures and contents: a page that is used asks for many."""
    places: Places
    """For parts of long videos."""
    bodies: HeldBodies
    metrics: Metrics

    def uri(self, stored: StoredFile) -> str:
        """The file as Triton finds it below its media root."""
        return str(stored.path.relative_to(self.settings.media_root.resolve()))


def open_uploads(settings: Settings) -> Uploads:
    """Raises OSError: uploads cannot be kept below the media root."""
    return Uploads(
        settings.uploads,
        quota_bytes=settings.upload_quota_bytes,
        capacity_bytes=settings.upload_capacity_bytes,
        expiry_seconds=settings.upload_expiry_seconds,
        max_files=settings.upload_max_files,
        max_at_once=settings.uploads_at_once,
        min_free_bytes=settings.upload_free_bytes,
    )


@asynccontextmanager
async def started(
    settings: Settings, uploads: Uploads, secret: Secret, metrics: Metrics, fetcher: Fetcher | None
) -> AsyncIterator[Services]:
    """The services of one event loop; they end with the block."""
    probe = EngineProbe(address(settings.url, settings.tls, None, settings.timeouts))
    pictures = Pictures()
    fetcher = fetcher or Fetcher(
        settings.allowed_hosts, max_bytes=settings.max_fetch_bytes, max_seconds=settings.max_fetch_seconds
    )
    try:
        async with (
            sweeping(uploads.sweep, lambda: sweep_journals(settings.journals, uploads.expiry_seconds)),
            AsyncClient(settings.url, tls=settings.tls, timeouts=settings.timeouts) as client,
        ):
            yield Services(
                settings=settings,
                client=client,
                secret=secret,
                probe=probe,
                uploads=uploads,
                references=MediaReferences(settings.media_root, uploads, fetcher),
                pictures=pictures,
                keys=ApiKeys(settings.api_keys),
                guesses=Guesses(settings.wrong_keys_per_minute),
                limits=RequestLimits(settings.requests_per_minute, settings.concurrent_requests),
                page_limits=RequestLimits(settings.page_requests_per_minute, settings.page_concurrent_requests),
                views=Rates(settings.views_per_minute, "pictures and contents"),
                places=Places(settings.parts_in_flight),
                bodies=HeldBodies(settings.max_held_bytes),
                metrics=metrics,
            )
    finally:
        await pictures.close()
        await probe.close()


def _services(request: Request) -> Services:
    shared: Services = request.app.state.services
    return shared


Shared = Annotated[Services, Depends(_services)]


async def _resources() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as resources:
        yield resources


Resources = Annotated[AsyncExitStack, Depends(_resources)]
"""The resources that a request holds until its response was sent, or its client has gone."""
