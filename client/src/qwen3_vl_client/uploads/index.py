"""The index of uploaded files: an SQLite file that any number of threads and processes write to in turn."""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..disk import open_private, told
from ..errors import NotFound
from .places import Places

_BUSY_SECONDS = 30.0
_ID = re.compile(r"file-[0-9a-f]{32}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    digest TEXT,              -- of owner and content; NULL while it is being uploaded
    bytes INTEGER NOT NULL,   -- reserved so far, then its size
    created REAL NOT NULL,
    expires REAL NOT NULL     -- counts when it is uploaded
);
CREATE INDEX IF NOT EXISTS files_of_owner ON files (owner, created, id);
CREATE INDEX IF NOT EXISTS contents ON files (digest, bytes);
"""


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


class FileIndex:
    """Errors of the disk are those of `disk.told`."""

    def __init__(self, places: Places) -> None:
        """Raises OSError, which names the file, if it cannot be written."""
        self._places = places
        self._path = places.folder / "index.sqlite"
        os.close(open_private(self._path, os.O_RDWR | os.O_CREAT))
        # SQLite gives what it puts beside the file the file's own mode.
        for each in places.folder.glob(f"{self._path.name}*"):
            each.chmod(0o600)
        try:
            # Held open: what SQLite puts beside the file stays there, so that a full disk can be read and swept.
            self._held = self._connect(check_same_thread=False)
            self._held.execute("PRAGMA journal_mode = WAL")
            self._held.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            raise OSError(f"the index {str(self._path)!r} cannot be written: {error}") from error

    def close(self) -> None:
        self._held.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with told(self._places.folder, "uploads"), closing(self._connect()) as index:
            yield index

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Nobody else writes until the end: what is read stays true. An error takes everything back."""
        with self.reading() as index:
            index.execute("BEGIN IMMEDIATE")
            try:
                yield index
                index.execute("COMMIT")
            except BaseException:
                # SQLite itself takes some failures back.
                if index.in_transaction:
                    index.execute("ROLLBACK")
                raise

    def find(self, index: sqlite3.Connection, owner: str, id: str) -> StoredFile:
        """Raises NotFound for what is not, or no longer, among the owner's files."""
        if _ID.fullmatch(id) and (found := self.select(index, owner, " AND id = ?", id)):
            return found[0]
        raise NotFound(f"there is no file {id!r}")

    def select(self, index: sqlite3.Connection, owner: str, clauses: str, *values: object) -> list[StoredFile]:
        """The owner's files; `clauses` narrow them down."""
        rows = index.execute(
            "SELECT id, owner, name, purpose, digest, bytes, created, expires FROM files"
            f" WHERE owner = ? AND digest NOT NULL AND expires > ?{clauses}",
            (owner, time.time(), *values),
        )
        return [StoredFile(*(*row, self._places.content(row[4]))) for row in rows]

    def remove(self, index: sqlite3.Connection, id: str) -> None:
        """Removes the row and, with the owner's last row that has it, the content: first, so that a full disk has room
        again for what is written to the index."""
        row = index.execute("SELECT digest FROM files WHERE id = ?", (id,)).fetchone()
        if row is None:
            return
        (digest,) = row
        if digest is None:
            self._places.partial(id).unlink(missing_ok=True)
        elif not index.execute("SELECT 1 FROM files WHERE digest = ? AND id != ?", (digest, id)).fetchone():
            self._places.content(digest).unlink(missing_ok=True)
        index.execute("DELETE FROM files WHERE id = ?", (id,))

    def _connect(self, *, check_same_thread: bool = True) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=check_same_thread
        )
