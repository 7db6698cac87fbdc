"""A file being written."""

import fcntl
import hashlib
import logging
import math
import secrets
import sqlite3
import threading
import time
import unicodedata
from types import TracebackType

from ..disk import DiskFull, open_private, private_folder, told
from ..errors import InvalidRequest, NotFound
from .index import FileIndex, StoredFile
from .places import Places
from .room import QuotaExceeded, Room

_log = logging.getLogger(__name__)

# Space is reserved in steps, so that uploads that run at the same time cannot exceed a quota together.
_RESERVED_BYTES = 16 * 2**20
_NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")


def check_name(name: str) -> None:
    """Raises `InvalidRequest` for what cannot be shown as a file's name."""
    if any(unicodedata.category(character) in _NOT_IN_NAMES for character in name):
        raise InvalidRequest(f"the file's name is {name!r}; a name without control characters is accepted")


class Upload:
    """Leaving its `with` statement without `finish` removes it."""

    def __init__(self, owner: str, places: Places, index: FileIndex, room: Room, expiry_seconds: float) -> None:
        # Random, not the content's digest: that would let everybody who knows a content name the file, and an owner's
        # equal files could not have names and expiries of their own. Equal contents of one owner are kept once.
        self.id = f"file-{secrets.token_hex(16)}"
        self.size_bytes = 0
        self._owner = owner
        self._places = places
        self._index = index
        self._room = room
        self._expiry_seconds = expiry_seconds
        self._reserved_bytes = 0
        # The owner's name first: nobody's content lies where another's equal one does, so that neither room, nor time,
        # nor what happens to a file tells who else has it.
        self._digest = hashlib.sha256(hashlib.sha256(owner.encode()).digest())
        self._path = places.partial(self.id)
        self._finished = False
        # A thread may still write while the one that waited for it leaves.
        self._busy = threading.Lock()
        with told(places.folder, "uploads"):
            # Unbuffered: nothing is left that could fail when it is closed.
            self._file = open(self._path, "xb", buffering=0, opener=open_private)  # noqa: SIM115
        try:
            # Before the index knows it: what is in the index without a lock was given up.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            now = time.time()
            with index.writing() as rows:
                room.check_another(rows, owner)
                row = (self.id, owner, now, now + expiry_seconds)
                rows.execute("INSERT INTO files VALUES (?, ?, '', '', NULL, 0, ?, ?)", row)
        except BaseException:
            self._path.unlink(missing_ok=True)
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        """Appends to the file.

        Raises:
            QuotaExceeded: its owner, or all together, may not keep so much.
            DiskFull: the disk does not hold it.
        """
        with self._busy, told(self._places.folder, "uploads"):
            self.size_bytes += len(data)
            if self.size_bytes > self._reserved_bytes:
                self._reserve()
            self._digest.update(data)
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]

    def finish(self, name: str, *, purpose: str = "user_data", expiry_seconds: float | None = None) -> StoredFile:
        """Makes it one of its owner's files, which its owner calls `name`. It may be kept for less than the folder's
        `expiry_seconds`, never for more.

        Raises:
            InvalidRequest: nothing was written, or the name is none.
            DiskFull: the index does not hold it.
        """
        check_name(name)
        if not self.size_bytes:
            raise InvalidRequest("the file is empty")
        digest = self._digest.hexdigest()
        # Its time begins here: the clock may have been set while it was uploaded.
        created = time.time()
        expires = created + min(expiry_seconds or math.inf, self._expiry_seconds)
        with self._busy:
            try:
                with self._index.writing() as rows:
                    self._update(
                        rows,
                        "name = ?, purpose = ?, digest = ?, bytes = ?, created = ?, expires = ?",
                        *(name, purpose, digest, self.size_bytes, created, expires),
                    )
                    self._place(digest)
            except BaseException:
                self._take_back(digest)
                raise
            self._finished = True
        content = self._places.content(digest)
        return StoredFile(self.id, self._owner, name, purpose, digest, self.size_bytes, created, expires, content)

    def __enter__(self) -> "Upload":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._busy:
            if not self._finished:
                # First, so that a full disk has room for what is written to the index.
                self._path.unlink(missing_ok=True)
            self._file.close()
            if self._finished:
                return
            try:
                with self._index.writing() as rows:
                    self._index.remove(rows, self.id)
            except DiskFull as full:
                _log.warning("an upload that ended stays in the index until it is swept: %s", full)

    def _reserve(self) -> None:
        # The last step is as small as the room that is left demands.
        for step in (_RESERVED_BYTES, 0):
            wanted = self.size_bytes + step
            try:
                with self._index.writing() as rows:
                    self._room.check_more(rows, self._owner, wanted - self._reserved_bytes, self._places)
                    self._update(rows, "bytes = ?", wanted)
            except (QuotaExceeded, DiskFull):
                if not step:
                    raise
            else:
                self._reserved_bytes = wanted
                return

    def _update(self, rows: sqlite3.Connection, assignments: str, *values: object) -> None:
        if not rows.execute(f"UPDATE files SET {assignments} WHERE id = ?", (*values, self.id)).rowcount:
            raise NotFound(f"the upload {self.id} is no longer known")

    def _place(self, digest: str) -> None:
        content = self._places.content(digest)
        private_folder(content.parent)
        # The owner has it already: the file that is there keeps its time of change, by which the server remembers it.
        if content.exists():
            self._path.unlink()
        else:
            self._path.replace(content)

    def _take_back(self, digest: str) -> None:
        """A content that the index did not get to know goes, unless another file of the owner has it."""
        with self._index.writing() as rows:
            if not rows.execute("SELECT 1 FROM files WHERE digest = ?", (digest,)).fetchone():
                self._places.content(digest).unlink(missing_ok=True)
