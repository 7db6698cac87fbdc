"""Files that users uploaded: kept once per content below the server's media root, each seen by its owner only.

    folder/content/ab/abcdef…   what was uploaded, named by its SHA-256; Triton reads it where it lies
    folder/partial/file-…       what is being uploaded
    folder/index.sqlite         who uploaded what, and until when it is kept

Any number of threads and processes may share a folder.
"""

import hashlib
import math
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .errors import InvalidRequest, NotFound, ResourceExhausted

# Space is reserved in steps, so that uploads that run at the same time cannot exceed a quota together.
_RESERVED_BYTES = 16 * 2**20
# An upload that did not grow by a step for so long was given up.
_STALLED_SECONDS = 3600.0
_BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    digest TEXT,              -- NULL while it is being uploaded
    bytes INTEGER NOT NULL,   -- reserved so far, then its size
    created REAL NOT NULL,
    expires REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS files_by_owner ON files (owner, created);
CREATE INDEX IF NOT EXISTS files_by_digest ON files (digest);
"""
_OF_OWNER = "SELECT coalesce(sum(bytes), 0) FROM files WHERE owner = ?"
_OF_ALL = """
SELECT coalesce((SELECT sum(bytes) FROM files WHERE digest IS NULL), 0)
     + coalesce((SELECT sum(bytes) FROM (SELECT DISTINCT digest, bytes FROM files WHERE digest NOT NULL)), 0)
"""


class QuotaExceeded(ResourceExhausted):
    """There is no room for an upload: its owner, or all together, keep as much as is allowed."""


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file. `name` is what its owner calls it, `path` where it lies; times are Unix seconds."""

    id: str
    owner: str
    name: str
    purpose: str
    digest: str
    size_bytes: int
    created: float
    expires: float
    path: Path


class Uploads:
    """The files in a folder.

    Args:
        folder: made if it does not exist; below the media root, so that the server can be asked about its files.
        quota_bytes: what one owner may keep.
        capacity_bytes: what all may keep together; equal contents count once.
        expiry_seconds: how long a file is kept.
    """

    def __init__(self, folder: Path, *, quota_bytes: int, capacity_bytes: int, expiry_seconds: float) -> None:
        self.folder = folder.resolve()
        self.quota_bytes = quota_bytes
        self.capacity_bytes = capacity_bytes
        self.expiry_seconds = expiry_seconds
        self._index = self.folder / "index.sqlite"
        for name in ("content", "partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as index:
            index.execute("PRAGMA journal_mode = WAL")
            index.executescript(_SCHEMA)

    def begin(self, owner: str) -> "Upload":
        """Starts an upload; use it in a `with` statement, write to it and call its `finish`."""
        return Upload(self, owner)

    def find(self, owner: str, id: str) -> StoredFile:
        """The owner's file with this id.

        Raises:
            NotFound: the owner has none: it never existed, has expired, was deleted, or is somebody else's.
        """
        with closing(self._connect()) as index:
            found = self._select(index, "AND id = ?", owner, id)
        if not found:
            raise NotFound(f"there is no file {id!r}")
        return found[0]

    def files(self, owner: str) -> list[StoredFile]:
        """The owner's files, oldest first."""
        with closing(self._connect()) as index:
            return self._select(index, "ORDER BY created, rowid", owner)

    def delete(self, owner: str, id: str) -> None:
        """Deletes the owner's file with this id; its content goes with the last file that has it.

        Raises:
            NotFound: as of `find`.
        """
        with self._transaction() as index:
            if not self._select(index, "AND id = ?", owner, id):
                raise NotFound(f"there is no file {id!r}")
            self._remove(index, [id])

    def sweep(self) -> int:
        """Deletes what has expired and what was never finished; tells how many that were."""
        with self._transaction() as index:
            expired = [id for (id,) in index.execute("SELECT id FROM files WHERE expires <= ?", (time.time(),))]
            self._remove(index, expired)
        return len(expired)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._index, timeout=_BUSY_SECONDS, isolation_level=None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """What is read stays true until the end: nobody else writes meanwhile."""
        with closing(self._connect()) as index:
            index.execute("BEGIN IMMEDIATE")
            try:
                yield index
            except BaseException:
                index.execute("ROLLBACK")
                raise
            index.execute("COMMIT")

    def _select(self, index: sqlite3.Connection, clause: str, owner: str, *arguments: str) -> list[StoredFile]:
        rows = index.execute(
            "SELECT id, owner, name, purpose, digest, bytes, created, expires FROM files"
            f" WHERE owner = ? AND digest NOT NULL AND expires > ? {clause}",
            (owner, time.time(), *arguments),
        )
        return [StoredFile(*(*row, self._content(row[4]))) for row in rows]

    def _content(self, digest: str) -> Path:
        return self.folder / "content" / digest[:2] / digest

    def _partial(self, id: str) -> Path:
        return self.folder / "partial" / id

    def _remove(self, index: sqlite3.Connection, ids: list[str]) -> None:
        for id in ids:
            (digest,) = index.execute("DELETE FROM files WHERE id = ? RETURNING digest", (id,)).fetchone()
            if digest is None:
                self._partial(id).unlink(missing_ok=True)
            elif not index.execute("SELECT 1 FROM files WHERE digest = ?", (digest,)).fetchone():
                self._content(digest).unlink(missing_ok=True)

    def _reserve(self, index: sqlite3.Connection, owner: str, more_bytes: int) -> None:
        """Raises `QuotaExceeded` unless the owner may keep so much more."""
        for held, limit, whose in (
            (index.execute(_OF_OWNER, (owner,)).fetchone()[0], self.quota_bytes, "your files"),
            (index.execute(_OF_ALL).fetchone()[0], self.capacity_bytes, "all files on this server"),
        ):
            if held + more_bytes > limit:
                raise QuotaExceeded(
                    f"there is no room for this file: {whose} hold {held:,} bytes, being uploaded included, of at most"
                    f" {limit:,}; delete files, or wait until some expire"
                )


class Upload:
    """A file being written. Leaving its `with` statement without `finish` removes it."""

    def __init__(self, uploads: Uploads, owner: str) -> None:
        self.id = f"file-{secrets.token_hex(16)}"
        self.size_bytes = 0
        self._uploads = uploads
        self._owner = owner
        self._reserved_bytes = 0
        self._digest = hashlib.sha256()
        self._path = uploads._partial(self.id)
        now = time.time()
        with uploads._transaction() as index:
            index.execute(
                "INSERT INTO files VALUES (?, ?, '', '', NULL, 0, ?, ?)",
                (self.id, owner, now, now + _STALLED_SECONDS),
            )
        self._file = self._path.open("xb")
        self._finished = False

    def write(self, data: bytes) -> None:
        """Appends to the file.

        Raises:
            QuotaExceeded: there is no room for it.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._reserved_bytes:
            self._reserve()
        self._digest.update(data)
        self._file.write(data)

    def finish(self, name: str, *, purpose: str = "user_data", expiry_seconds: float | None = None) -> StoredFile:
        """Makes it one of its owner's files, which its owner calls `name`. It may be kept for less than the folder's
        `expiry_seconds`, never for more.

        Raises:
            InvalidRequest: nothing was written.
            NotFound: it was given up, because it stalled.
        """
        self._file.close()
        if not self.size_bytes:
            raise InvalidRequest("the file is empty")
        kept_seconds = min(expiry_seconds or math.inf, self._uploads.expiry_seconds)
        digest = self._digest.hexdigest()
        content = self._uploads._content(digest)
        content.parent.mkdir(exist_ok=True)
        with self._uploads._transaction() as index:
            self._update(
                index,
                "name = ?, purpose = ?, digest = ?, bytes = ?, expires = created + ?",
                *(name, purpose, digest, self.size_bytes, kept_seconds),
            )
            # Who uploads what is there already adds nothing; the file that is there keeps its time of change.
            if content.exists():
                self._path.unlink()
            else:
                self._path.replace(content)
        self._finished = True
        return self._uploads.find(self._owner, self.id)

    def __enter__(self) -> "Upload":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._finished:
            with self._uploads._transaction() as index:
                if index.execute("SELECT 1 FROM files WHERE id = ?", (self.id,)).fetchone():
                    self._uploads._remove(index, [self.id])

    def _reserve(self) -> None:
        # The last step is as small as the room that is left demands.
        for step in (_RESERVED_BYTES, 0):
            wanted = self.size_bytes + step
            try:
                with self._uploads._transaction() as index:
                    self._uploads._reserve(index, self._owner, wanted - self._reserved_bytes)
                    self._update(index, "bytes = ?, expires = ?", wanted, time.time() + _STALLED_SECONDS)
            except QuotaExceeded:
                if not step:
                    raise
            else:
                self._reserved_bytes = wanted
                return

    def _update(self, index: sqlite3.Connection, assignments: str, *values: object) -> None:
        if not index.execute(f"UPDATE files SET {assignments} WHERE id = ?", (*values, self.id)).rowcount:
            raise NotFound(f"the upload {self.id} was given up: nothing arrived for {_STALLED_SECONDS:g} s")
