"""The cache of videos: what was read and decoded of them, on disk, so that a second question decodes nothing.

Files are named by a digest of all that they depend on, appear whole or not at all, and may be used by several
processes. The least recently used go when there are too many bytes or files.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt

from preprocess.directories import prepare_directory

log = logging.getLogger(__name__)

_CHECK_BYTES = 16
"""Before what is written whole: a digest of it. A machine that stops in the middle may leave less on its disk."""
_MAX_FILES = 16_384
_KEPT_SHARE = 0.9
"""The share of an exceeded bound that is kept: so it is seldom exceeded again."""
_WRITES_BETWEEN_SCANS = 1024
"""Other processes write to the folder too."""


class _Estimate:
    """How much the folder holds, as far as this process knows. Used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.scanning = threading.Lock()
        """Held by the one thread that scans the folder."""
        self._bytes = self._files = self._writes_left = 0

    def add(self, size: int) -> tuple[int, int] | None:
        """Bytes and files, one of `size` bytes added; None when it is time to scan it."""
        with self._lock:
            self._bytes += size
            self._files += 1
            self._writes_left -= 1
            return None if self._writes_left < 0 else (self._bytes, self._files)

    def set(self, size: int, files: int) -> None:
        with self._lock:
            self._bytes, self._files, self._writes_left = size, files, _WRITES_BETWEEN_SCANS


@dataclass(frozen=True)
class DiskCache:
    """A folder, private to this user, of at most `max_bytes` and `_MAX_FILES` files, and what is being written."""

    folder: Path
    max_bytes: int
    _estimate: _Estimate = field(default_factory=_Estimate, compare=False, repr=False)

    def read(self, key: str) -> bytes | None:
        """The bytes that were written; None as well where the disk has lost a part of them."""
        try:
            file = self._path(key).read_bytes()
        except OSError:
            return None
        check, content = file[:_CHECK_BYTES], file[_CHECK_BYTES:]
        if check != _check(content):
            self._forget(key)
            return None
        self._touch(key)
        return content

    def write(self, key: str, content: bytes) -> None:
        with self._draft(key) as write:
            write(_check(content))
            write(content)

    def patches(
        self, key: str, shape: tuple[int, int, int], decoded: Iterator[npt.NDArray[np.uint8]]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """The temporal patches [patches, values] that `key` names, `shape[0]` of them: read, or else taken and kept.

        They are kept once all are taken. `decoded` does no work unless it is asked.
        """
        count, rows, values = shape
        file = self._open(key, count * rows * values)
        if file is None:
            with self._draft(key) as write:
                for patch in islice(decoded, count - 1):
                    write(patch.tobytes())
                    yield patch
                last = list(islice(decoded, 1))
                for patch in last:
                    write(patch.tobytes())
            # Kept by now: who has the last one may ask for no more.
            yield from last
            yield from decoded
            return
        self._touch(key)
        with file:
            for _ in range(count):
                yield np.fromfile(file, np.uint8, rows * values).reshape(rows, values)

    def _open(self, key: str, size: int) -> BinaryIO | None:
        """The file `key`, if it is there with all of its bytes."""
        try:
            file = self._path(key).open("rb")
        except OSError:
            return None
        if os.fstat(file.fileno()).st_size == size:
            return file
        file.close()
        self._forget(key)
        return None

    @contextlib.contextmanager
    def _draft(self, key: str) -> Iterator[Callable[[bytes], None]]:
        """Makes a file `key` of the bytes that are written, but for an exception. A full disk costs no answer."""
        draft = self.folder / f"{uuid.uuid4().hex}.draft"
        file: BinaryIO | None = None
        failed: OSError | None = None

        def write(part: bytes) -> None:
            nonlocal failed
            if file is None or failed is not None:
                return
            try:
                left = memoryview(part)
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                failed = error
                # Room for those who need it more.
                file.close()
                draft.unlink(missing_ok=True)

        try:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Not buffered: what cannot be written says so at once, and nothing is left to be written as it closes.
                file = draft.open("wb", buffering=0)
            except OSError as error:
                failed = error
            yield write
            if failed is None:
                try:
                    size = draft.stat().st_size
                    draft.replace(self._path(key))
                    self._count(size)
                except OSError as error:
                    failed = error
        finally:
            if file is not None:
                file.close()
            with contextlib.suppress(OSError):
                draft.unlink()
        if failed is not None:
            log.warning("a video is not cached: %s", failed)
            with contextlib.suppress(OSError):
                self._evict()

    def _count(self, size: int) -> None:
        """Scans the folder only if there may be too much: it takes time for every file."""
        held = self._estimate.add(size)
        if held is None or held[0] > self._most_bytes(held[0]) or held[1] > _MAX_FILES:
            self._evict()

    def _most_bytes(self, held: int) -> int:
        """A disk that others need too is never filled by more than half of what they leave."""
        return min(self.max_bytes, (shutil.disk_usage(self.folder).free + held) // 2)

    def _evict(self) -> None:
        """Removes the least recently used files if there are too many, drafts that a dead process left among them."""
        # Another thread that scans does it for both.
        if not self._estimate.scanning.acquire(blocking=False):
            return
        try:
            found = []
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        found.append((status.st_mtime_ns, status.st_size, entry.path))
            total, files = sum(size for _, size, _ in found), len(found)
            most_bytes = self._most_bytes(total)
            if total > most_bytes or files > _MAX_FILES:
                for _, size, path in sorted(found):
                    if total <= _KEPT_SHARE * most_bytes and files <= _KEPT_SHARE * _MAX_FILES:
                        break
                    Path(path).unlink(missing_ok=True)
                    total, files = total - size, files - 1
            self._estimate.set(total, files)
        finally:
            self._estimate.scanning.release()

    def _forget(self, key: str) -> None:
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def _touch(self, key: str) -> None:
        with contextlib.suppress(OSError):
            os.utime(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / key


def open_cache(folder: Path, max_bytes: int) -> DiskCache | None:
    """None for no bytes, and where the folder cannot be used: the stage works without."""
    if not max_bytes:
        return None
    try:
        prepare_directory(folder)
    except OSError as error:
        log.warning("no video is cached, for cache_directory cannot be used: %s", error)
        return None
    return DiskCache(folder, max_bytes)


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECK_BYTES).digest()


def digest(*parts: object) -> str:
    """A name for what follows from `parts`, whose `repr` tells all of them, by the code as it is."""
    told = hashlib.sha256(_code())
    for part in parts:
        told.update(part if isinstance(part, bytes) else repr(part).encode())
        told.update(b"\0")
    return told.hexdigest()


@cache
def _code() -> bytes:
    """Another version of this package, or of what it decodes and resizes with, has entries of its own."""
    told = hashlib.sha256(f"{av.__version__} {version('torch')}".encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        told.update(path.read_bytes())
    return told.digest()
