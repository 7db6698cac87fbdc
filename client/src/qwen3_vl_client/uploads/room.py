"""How much one owner and all may keep, and how much the disk holds."""

import sqlite3
import time
from dataclasses import dataclass

from ..disk import free_bytes, no_room
from ..errors import ResourceExhausted
from .places import Places

_OF_OWNER = "SELECT coalesce(sum(bytes), 0) FROM files WHERE owner = ?"
# Every file counts in full: were equal ones counted once, whether there is room would tell what others have.
_OF_ALL = "SELECT coalesce(sum(bytes), 0) FROM files"


class QuotaExceeded(ResourceExhausted):
    """There is no room for an upload: its owner, or all together, keep as much as is allowed."""


class TooManyUploads(ResourceExhausted):
    """Its owner uploads as many files at the same time as is allowed."""


@dataclass(frozen=True)
class Room:
    """Bounds that are checked while the index is locked."""

    quota_bytes: int
    capacity_bytes: int
    max_files: int
    max_at_once: int
    min_free_bytes: int

    def check_another(self, index: sqlite3.Connection, owner: str) -> None:
        """Raises `QuotaExceeded` or `TooManyUploads` unless the owner may begin another upload."""
        (in_flight,) = index.execute(
            "SELECT count(*) FROM files WHERE owner = ? AND digest IS NULL", (owner,)
        ).fetchone()
        if in_flight >= self.max_at_once:
            raise TooManyUploads(
                f"{in_flight} of your files are being uploaded; at most {self.max_at_once} at once are accepted"
            )
        (kept,) = index.execute(
            "SELECT count(*) FROM files WHERE owner = ? AND (digest IS NULL OR expires > ?)", (owner, time.time())
        ).fetchone()
        if kept >= self.max_files:
            raise QuotaExceeded(f"you have {kept:,} files of at most {self.max_files:,}; delete some of them")

    def check_more(self, index: sqlite3.Connection, owner: str, more_bytes: int, places: Places) -> None:
        """Raises `QuotaExceeded` unless the owner may keep so much more, `DiskFull` unless the disk holds it."""
        (own,) = index.execute(_OF_OWNER, (owner,)).fetchone()
        if own + more_bytes > self.quota_bytes:
            raise QuotaExceeded(
                f"there is no room for this file: your files hold {own:,} bytes, being uploaded included, of at most"
                f" {self.quota_bytes:,}; delete files, or wait until some expire"
            )
        (held,) = index.execute(_OF_ALL).fetchone()
        if held + more_bytes > self.capacity_bytes:
            # How much all hold would tell each what the others upload.
            raise QuotaExceeded(
                "there is no room for this file: all files on this server hold as much as is allowed; delete files, or"
                " wait until some expire"
            )
        # What others were promised and have not written yet is not free.
        in_flight = index.execute("SELECT id, bytes FROM files WHERE digest IS NULL").fetchall()
        promised_bytes = sum(max(reserved - places.partial_bytes(id), 0) for id, reserved in in_flight)
        if free_bytes(places.folder) - promised_bytes - more_bytes < self.min_free_bytes:
            raise no_room("this file", self.min_free_bytes)
