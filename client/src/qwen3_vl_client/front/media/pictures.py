"""Pictures of a video at given times, decoded in processes of their own: a hostile file costs its own picture only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ...errors import NotFound, ResourceExhausted
from ..places import Places

# Run as a script: it needs nothing of this package, whose import takes longer than a picture.
_WORKER = Path(__file__).with_name("picture_worker.py")
_MAX_JPEG_BYTES = 4 * 2**20


class TooManyPictures(ResourceExhausted):
    """So many are being waited for that another one is refused."""


class Pictures:
    """Decodes pictures, a few at a time and one for each owner, so that nobody waits for another's long ones.

    Args:
        workers: processes that decode; each is kept for the next picture unless it fails, or nobody waits any more.
        max_seconds: that one picture may take.
        max_pending: that one owner may wait for.
        max_pending_of_all: that all together may.
    """

    def __init__(
        self, *, workers: int = 2, max_seconds: float = 5.0, max_pending: int = 32, max_pending_of_all: int = 256
    ) -> None:
        self._max_seconds = max_seconds
        self._max_pending = max_pending
        self._max_pending_of_all = max_pending_of_all
        self._pending: Counter[str] = Counter()
        self._turns = Places(1)
        self._decoding = asyncio.Semaphore(workers)
        self._idle: list[Process] = []

    async def jpeg(self, path: Path, seconds: float, owner: str) -> bytes:
        """The frame that is shown at `seconds`, small. Cancelled, it ends the process that decodes.

        Raises:
            NotFound: the file has no picture there that can be decoded.
            TooManyPictures: the owner, or all together, wait for as many as are allowed.
        """
        with self._counted(owner):
            async with self._turns.of(owner), self._decoding, self._worker() as worker:
                try:
                    async with asyncio.timeout(self._max_seconds):
                        picture = await _ask(worker, path, seconds)
                except (TimeoutError, EOFError, OSError, ValueError) as error:
                    raise NotFound(f"there is no picture at {seconds:g} s: its decoder failed") from error
        if not picture:
            raise NotFound(f"there is no picture at {seconds:g} s")
        return picture

    async def close(self) -> None:
        """Ends the processes that wait for work; those at work end with their pictures' requests."""
        while self._idle:
            await _end(self._idle.pop())

    @contextlib.contextmanager
    def _counted(self, owner: str) -> Iterator[None]:
        for pending, bound, whose in (
            (self._pending[owner], self._max_pending, "you wait for"),
            (self._pending.total(), self._max_pending_of_all, "all users wait for"),
        ):
            if pending >= bound:
                raise TooManyPictures(f"{whose} {pending} pictures; at most {bound} at the same time are accepted")
        self._pending[owner] += 1
        try:
            yield
        finally:
            self._pending[owner] -= 1
            self._pending += Counter()

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[Process]:
        """One that is idle, or a new one. An error, a cancellation too, ends it."""
        alive = [worker for worker in self._idle if worker.returncode is None]
        worker = alive.pop() if alive else await _start()
        self._idle = alive
        try:
            yield worker
        except BaseException:
            # Shielded: when the request is cancelled again, the process is still ended.
            await asyncio.shield(_end(worker))
            raise
        self._idle.append(worker)


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(_WORKER), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )


async def _ask(worker: Process, path: Path, seconds: float) -> bytes:
    """Raises EOFError or OSError for a worker that has ended, ValueError for one that answers what it never would."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps([str(path), seconds]).encode() + b"\n")
    await worker.stdin.drain()
    length = int.from_bytes(await worker.stdout.readexactly(4), "big")
    if length > _MAX_JPEG_BYTES:
        raise ValueError(f"a picture of {length:,} bytes")
    return await worker.stdout.readexactly(length)


async def _end(worker: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    await worker.wait()
