"""Deletes what has expired, what was never finished, and what a crash left behind, on a disk that may be full."""

import logging
import time
from pathlib import Path

from ..disk import DiskFull
from .index import FileIndex
from .places import Places

_log = logging.getLogger(__name__)

_AT_ONCE = 100
"""Files in one transaction: nobody else writes meanwhile."""
_UNKNOWN_SECONDS = 3600.0
"""So old is a file that the index will not get to know any more. They are looked for as often."""
_SET_SECONDS = 600.0
_DOUBTED_SECONDS = 3600.0
"""A clock that went so far ahead of the time that passed was set: for so long it expires nothing, should it be set
back."""


class Sweeper:
    """Remembers when it swept last, on the clock and in time that passed."""

    def __init__(self, places: Places, index: FileIndex) -> None:
        self._places = places
        self._index = index
        self._clock, self._passed = time.time(), time.monotonic()
        self._doubted_until = self._next_search = self._passed

    def sweep(self) -> int:
        """Tells how many files went. What cannot be deleted now is tried again the next time."""
        ids = self._given_up()
        if self._believes_clock():
            ids += self._expired()
        removed = sum(self._remove(ids[start : start + _AT_ONCE]) for start in range(0, len(ids), _AT_ONCE))
        if time.monotonic() >= self._next_search:
            self._next_search = time.monotonic() + _UNKNOWN_SECONDS
            for path in self._places.everything():
                self._remove_unknown(path)
        return removed

    def _given_up(self) -> list[str]:
        with self._index.reading() as index:
            rows = index.execute("SELECT id FROM files WHERE digest IS NULL").fetchall()
        return [id for (id,) in rows if not self._places.is_being_written(id)]

    def _expired(self) -> list[str]:
        with self._index.reading() as index:
            rows = index.execute("SELECT id FROM files WHERE digest NOT NULL AND expires <= ?", (time.time(),))
            return [id for (id,) in rows]

    def _believes_clock(self) -> bool:
        clock, passed = time.time(), time.monotonic()
        if clock - self._clock > passed - self._passed + _SET_SECONDS:
            self._doubted_until = passed + _DOUBTED_SECONDS
            _log.warning("the clock was set ahead: for %g s no file expires", _DOUBTED_SECONDS)
        self._clock, self._passed = clock, passed
        return passed >= self._doubted_until

    def _remove(self, ids: list[str]) -> int:
        removed = 0
        try:
            with self._index.writing() as index:
                for id in ids:
                    try:
                        self._index.remove(index, id)
                        removed += 1
                    except OSError as error:
                        _log.warning("the file %s cannot be deleted: %s", id, error)
        except DiskFull as error:
            _log.warning("files were deleted that the index still has: %s", error)
            return 0
        return removed

    def _remove_unknown(self, path: Path) -> None:
        try:
            if path.stat().st_mtime > time.time() - _UNKNOWN_SECONDS or self._places.is_being_written(path.name):
                return
            with self._index.writing() as index:
                if not index.execute("SELECT 1 FROM files WHERE ? IN (id, digest)", (path.name,)).fetchone():
                    path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s is no file of anybody, and cannot be deleted: %s", path, error)
