"""Writes what arrives in small pieces to an upload, in larger ones and outside of the event loop."""

from __future__ import annotations

import asyncio

from ..uploads import StoredFile, Upload

_BLOCK_BYTES = 2**20


class Storing:
    """An upload that an event loop writes to."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._block = bytearray()

    async def write(self, piece: bytes) -> None:
        """Appends a piece; errors are those of `Upload.write`."""
        self._block += piece
        if len(self._block) >= _BLOCK_BYTES:
            await self._flush()

    async def finish(self, name: str, *, purpose: str, expiry_seconds: float | None = None) -> StoredFile:
        """Makes it a file; errors are those of `Upload.finish`."""
        await self._flush()
        return await asyncio.to_thread(self._upload.finish, name, purpose=purpose, expiry_seconds=expiry_seconds)

    async def _flush(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        await asyncio.to_thread(self._upload.write, block)
