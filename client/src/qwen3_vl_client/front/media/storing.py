"""Writes what arrives at an event loop into an upload: piece by piece, outside of the loop."""

from __future__ import annotations

import asyncio
from types import TracebackType

from ...uploads import StoredFile, Upload, Uploads

_BLOCK_BYTES = 2**20


class Storing:
    """An upload, `async with Storing(uploads, owner) as storing`; left without `finish`, it is removed.

    Errors are those of `Uploads.begin`, `Upload.write` and `Upload.finish`.
    """

    def __init__(self, uploads: Uploads, owner: str) -> None:
        self._uploads = uploads
        self._owner = owner
        self._upload: Upload | None = None
        self._block = bytearray()

    async def __aenter__(self) -> Storing:
        self._upload = await asyncio.to_thread(self._uploads.begin, self._owner)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._upload is not None
        # Also when the request is cancelled, and cancelled again.
        await asyncio.shield(asyncio.to_thread(self._upload.__exit__, kind, error, traceback))

    async def write(self, piece: bytes) -> None:
        """Appends a piece."""
        self._block += piece
        if len(self._block) >= _BLOCK_BYTES:
            await self._flush()

    async def finish(self, name: str, *, purpose: str = "user_data", expiry_seconds: float | None = None) -> StoredFile:
        """Makes it a file."""
        assert self._upload is not None
        await self._flush()
        return await asyncio.to_thread(self._upload.finish, name, purpose=purpose, expiry_seconds=expiry_seconds)

    async def _flush(self) -> None:
        assert self._upload is not None
        block, self._block = bytes(self._block), bytearray()
        await asyncio.to_thread(self._upload.write, block)
