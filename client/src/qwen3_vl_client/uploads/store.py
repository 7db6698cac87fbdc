"""The files of everybody: find, list, delete."""

from pathlib import Path

from ..disk import default_free_bytes
from ..errors import NotFound
from .index import FileIndex, StoredFile
from .places import Places
from .room import Room
from .sweeping import Sweeper
from .upload import Upload

_MAX_LISTED = 10_000


class Uploads:
    """The files in a folder.

    Args:
        folder: made if it does not exist; below the media root, so that the server can be asked about its files.
        quota_bytes: what one owner may keep.
        capacity_bytes: what all may keep together.
        expiry_seconds: how long a file is kept.
        max_files: how many files one owner may keep.
        max_at_once: how many one owner may upload at the same time.
        min_free_bytes: what uploads leave free on the disk; None: 1 GiB, or a twentieth of a smaller disk.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quota_bytes: int,
        capacity_bytes: int,
        expiry_seconds: float,
        max_files: int = 10_000,
        max_at_once: int = 8,
        min_free_bytes: int | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.expiry_seconds = expiry_seconds
        self._places = Places(self.folder)
        self._places.make()
        if min_free_bytes is None:
            min_free_bytes = default_free_bytes(self.folder)
        self._room = Room(quota_bytes, capacity_bytes, max_files, max_at_once, min_free_bytes)
        self._index = FileIndex(self._places)
        self._sweeper = Sweeper(self._places, self._index)

    def close(self) -> None:
        """Lets go of the index."""
        self._index.close()

    def begin(self, owner: str) -> Upload:
        """Starts an upload; use it in a `with` statement, write to it and call its `finish`.

        Raises:
            QuotaExceeded: the owner has as many files as are allowed.
            TooManyUploads: the owner uploads as many at the same time as are allowed.
            DiskFull: the disk has no room for it.
        """
        return Upload(owner, self._places, self._index, self._room, self.expiry_seconds)

    def find(self, owner: str, id: str) -> StoredFile:
        """The owner's file with this id.

        Raises:
            NotFound: the owner has none: it never existed, has expired, was deleted, or is somebody else's.
        """
        with self._index.reading() as index:
            found = self._index.find(index, owner, id)
        # A crash, or a full disk, while it was deleted.
        if not found.path.exists():
            raise NotFound(f"there is no file {id!r}")
        return found

    def files(
        self,
        owner: str,
        *,
        purpose: str | None = None,
        after: str | None = None,
        newest_first: bool = False,
        limit: int = _MAX_LISTED,
    ) -> list[StoredFile]:
        """The owner's files, oldest first unless told otherwise, at most `limit`.

        Args:
            purpose: only those of this purpose.
            after: only those that follow the file with this id.

        Raises:
            NotFound: the owner has no file `after`.
        """
        beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
        clauses, values = "", list[object]()
        if purpose is not None:
            clauses += " AND purpose = ?"
            values.append(purpose)
        with self._index.reading() as index:
            if after is not None:
                seen = self._index.find(index, owner, after)
                clauses += f" AND (created, id) {beyond} (?, ?)"
                values += [seen.created, seen.id]
            clauses += f" ORDER BY created {order}, id {order} LIMIT ?"
            return self._index.select(index, owner, clauses, *values, limit)

    def delete(self, owner: str, id: str) -> None:
        """Deletes the owner's file with this id; its content goes with the owner's last file that has it.

        Raises:
            NotFound: as of `find`.
        """
        with self._index.writing() as index:
            self._index.find(index, owner, id)
            self._index.remove(index, id)

    def sweep(self) -> int:
        """Deletes what has expired and what was never finished; tells how many that were."""
        return self._sweeper.sweep()
