"""Work that is done every minute, whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

_log = logging.getLogger(__name__)

_SECONDS = 60.0


@contextlib.asynccontextmanager
async def sweeping(*sweeps: Callable[[], object], every_seconds: float = _SECONDS) -> AsyncIterator[None]:
    """Calls all of them now and again, each in a thread, while the block runs. An error ends none of them; it is logged
    when it is another kind of error than before."""
    task = asyncio.create_task(_sweep(sweeps, every_seconds))
    try:
        yield
    finally:
        task.cancel()


async def _sweep(sweeps: tuple[Callable[[], object], ...], every_seconds: float) -> None:
    told: set[tuple[int, type[Exception]]] = set()
    while True:
        for index, sweep in enumerate(sweeps):
            try:
                await asyncio.to_thread(sweep)
            except Exception as error:
                if (index, type(error)) not in told:
                    told.add((index, type(error)))
                    _log.exception("sweeping failed; it goes on, and this kind of error is not told again")
        await asyncio.sleep(every_seconds)
