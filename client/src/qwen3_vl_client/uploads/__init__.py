"""Files that users uploaded, below the server's media root. Nothing tells an owner what others have.

    folder/content/ab/abcdef…   what was uploaded, named by the SHA-256 of its owner and content: kept once for each
                                owner; Triton reads it where it lies
    folder/partial/file-…       what is being uploaded, locked by the process that writes it
    folder/index.sqlite         who uploaded what, and until when it is kept

Any number of threads and processes may share a folder. A file changes while the index is locked, so that the two agree;
what a crash leaves apart is swept.

    store.py      the files of everybody: find, list, delete
    upload.py     a file being written
    room.py       what one owner and all may keep, and what the disk holds
    sweeping.py   what has expired and what nobody knows is deleted
    index.py      the SQLite file
    places.py     where files lie
"""

from ..disk import DiskFull
from .index import StoredFile
from .room import QuotaExceeded, TooManyUploads
from .store import Uploads
from .upload import Upload, check_name

__all__ = ["DiskFull", "QuotaExceeded", "StoredFile", "TooManyUploads", "Upload", "Uploads", "check_name"]
