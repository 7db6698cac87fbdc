"""Turns the URLs of a request into media: data URIs, uploaded files, paths below the media root, web addresses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ...errors import InvalidRequest, NotFound
from ...media import MAX_SUBTITLES_BYTES, check_subtitles
from ...uploads import Uploads
from ..places import Places
from .fetch import Fetcher
from .frame_list import ONE_A_SECOND, FrameTimes, as_video, is_frame_list
from .storing import Storing

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DATA_URI = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)
# For one owner; the others wait for their turn.
_FETCHED_AT_ONCE = 4
_FETCHED = "fetched"
_FILE_ID = re.compile(r"file-[0-9a-f]{32}")


class MediaReferences:
    """Turns URLs into parts of the client library's messages."""

    def __init__(self, media_root: Path, uploads: Uploads, fetcher: Fetcher) -> None:
        self._root = media_root.resolve()
        self._uploads = uploads
        self._fetcher = fetcher
        self._fetching = Places(_FETCHED_AT_ONCE)

    async def video(
        self,
        url: str,
        subtitles: str | None,
        where: str,
        owner: str,
        resources: AsyncExitStack,
        times: FrameTimes = ONE_A_SECOND,
    ) -> dict[str, Any]:
        """The part that a video means, with what its `subtitles` mean, if it has any; see `image`. `times` are those
        of its frames, if it comes as a list of them."""
        if is_frame_list(url):
            part = self._part("video", await asyncio.to_thread(as_video, url, times, where))
        else:
            part = self._part("video", await self._located(url, where, owner, resources))
        if subtitles is not None:
            part["subtitles"] = await self._subtitles(subtitles, f"{where}.subtitles", owner, resources)
        return part

    async def image(self, url: str, where: str, owner: str, resources: AsyncExitStack) -> dict[str, Any]:
        """The part that `url` means when `owner` says it; errors call it `where`.

        What has to be kept while the request runs ends with `resources`.

        Raises:
            InvalidRequest: the URL is none that is accepted.
            NotFound: there is no such file, or it is not the owner's.
        """
        return self._part("image", await self._located(url, where, owner, resources))

    async def _subtitles(self, url: str, where: str, owner: str, resources: AsyncExitStack) -> bytes | Path:
        """They are read here, unlike a video: their size is known before."""
        # Base64 has four characters for three bytes.
        if url[:5].lower() == "data:" and len(url) > 2 * MAX_SUBTITLES_BYTES:
            check_subtitles(where, len(url) * 3 // 4)
        located = await self._located(url, where, owner, resources)
        size = len(located) if isinstance(located, bytes) else (await asyncio.to_thread(located.stat)).st_size
        check_subtitles(where, size)
        return located

    def _part(self, kind: str, located: bytes | Path) -> dict[str, Any]:
        if isinstance(located, bytes):
            return {"type": kind, kind: located}
        return {"type": kind, "uri": str(located.relative_to(self._root))}

    async def _located(self, url: str, where: str, owner: str, resources: AsyncExitStack) -> bytes | Path:
        """The content of the URL, or the file below the media root that holds it."""
        scheme = match[1].lower() if (match := _SCHEME.match(url)) else None
        if scheme == "data":
            return await asyncio.to_thread(_decoded, url, where)
        if scheme in ("http", "https"):
            return await self._fetched(url, where, owner, resources)
        if _FILE_ID.fullmatch(url):
            return (await asyncio.to_thread(self._uploads.find, owner, url)).path
        if scheme == "file":
            path = unquote(url.partition(":")[2].removeprefix("//"))
            return await asyncio.to_thread(self._below_root, path, where)
        if scheme is None:
            return await asyncio.to_thread(self._below_root, url, where)
        raise InvalidRequest(
            f"{where} has the scheme {scheme[:20]!r}; a data URI, the id of a file, a path below the media root and an"
            " http(s) URL are accepted"
        )

    async def _fetched(self, url: str, where: str, owner: str, resources: AsyncExitStack) -> Path:
        # No owner has this name: the file is in nobody's list.
        keeper = f"{owner} (fetched)"
        async with self._fetching.of(keeper), Storing(self._uploads, keeper) as storing:
            await self._fetcher.fetch(url, where, storing.write)
            stored = await storing.finish(_FETCHED, purpose=_FETCHED)
        resources.push_async_callback(self._forget, keeper, stored.id)
        return stored.path

    async def _forget(self, keeper: str, id: str) -> None:
        # Also when the request was cancelled.
        await asyncio.shield(asyncio.to_thread(self._uploads.delete, keeper, id))

    def _below_root(self, path: str, where: str) -> Path:
        """The file, links followed. What lies elsewhere and what does not exist are told alike, and so
        are uploads, which are named by their ids only."""
        try:
            file = (self._root / path).resolve(strict=True)
            if file.is_file() and file.is_relative_to(self._root) and not file.is_relative_to(self._uploads.folder):
                return file
        except (OSError, ValueError, RuntimeError):
            pass
        raise NotFound(f"{where}: there is no such file below the media root")


def _decoded(uri: str, where: str) -> bytes:
    match = _DATA_URI.match(uri)
    if match is None or not match[2].lower().endswith(";base64"):
        raise InvalidRequest(f"{where} is a data URI that is not base64; data:TYPE;base64,… is accepted")
    try:
        return base64.b64decode(uri[match.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{where} is a data URI that is not base64: {error}") from None
