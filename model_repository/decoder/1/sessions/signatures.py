"""Which chunks come from stage 1: it signs them with a key that only the stages can read, in the credits directory."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import invalid_argument

KEY_NAME = "key"
KEY_BYTES = 32
SIGNATURE_CHARACTERS = 64


class Signatures:
    """Checks chunks. The key is read for each of them: a folder of temporary files may be tidied, and another made."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError for a key that cannot be made or read, PermissionError for one that others may know."""
        self._directory = directory
        shared_key(directory)

    def checked(self, header: bytes, token_ids: NDArray[np.int32], positions: NDArray[np.int32]) -> str:
        """The JSON of a `chunk_header`. Raises invalid_argument unless stage 1 has sent it with these tensors."""
        text = header[SIGNATURE_CHARACTERS:]
        expected = signature(shared_key(self._directory), text, token_ids, positions).encode()
        if not hmac.compare_digest(expected, header[:SIGNATURE_CHARACTERS]):
            raise invalid_argument("chunk_header is not signed by stage 1; requests go to the model qwen3_vl")
        return text.decode()


def signature(key: bytes, text: bytes, token_ids: NDArray[np.int32], positions: NDArray[np.int32]) -> str:
    """64 hexadecimal digits, of the header's JSON and the chunk's int32 tensors, each after its length in 8 bytes."""
    told = hashlib.blake2b(key=key, digest_size=SIGNATURE_CHARACTERS // 2)
    for part in (memoryview(text), *(np.ascontiguousarray(array).reshape(-1).data for array in (token_ids, positions))):
        told.update(part.nbytes.to_bytes(8, "little"))
        told.update(part)
    return told.hexdigest()


def shared_key(directory: Path) -> bytes:
    """The stages' common key: random bytes, written by whichever stage needs it first.

    Raises PermissionError for a file of somebody else and one that others may read, OSError where there can be none.
    """
    path = directory / KEY_NAME
    try:
        return _read(path)
    except FileNotFoundError:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = directory / f"{KEY_NAME}.{uuid.uuid4().hex}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            # A link never replaces: where both stages made one, the first counts for both.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        return _read(path)


def _read(path: Path) -> bytes:
    # Not held up by a pipe of that name, and not led elsewhere by a link.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(f"{path} is not a file that user {os.getuid()} alone can read and write")
        key = file.read()
    if len(key) != KEY_BYTES:
        raise PermissionError(f"{path} has {len(key)} bytes; a key of {KEY_BYTES} is accepted")
    return key
