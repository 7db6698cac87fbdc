"""A secret of this installation: what is derived from it, nobody else can make or guess."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

_NAME = "secret"
_BYTES = 32


class Secret:
    """32 random bytes, kept in a file that only this user reads."""

    def __init__(self, value: bytes) -> None:
        if len(value) != _BYTES:
            raise ValueError(f"the secret has {len(value)} bytes; {_BYTES} are accepted")
        self._value = value

    @classmethod
    def load(cls, folder: Path) -> Secret:
        """The folder's secret; made, once, if it has none. Processes that start together agree on one.

        Raises:
            ValueError: the file holds something else.
            OSError: it cannot be read or written.
        """
        path = folder / _NAME
        if not path.exists():
            _create(path)
        try:
            return cls(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}; without the file, a new one is made") from None

    def derive(self, purpose: str, value: str) -> str:
        """HMAC-SHA256 in hexadecimal; those of different purposes tell nothing of each other."""
        return hmac.new(self._value, f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()


def _create(path: Path) -> None:
    """Whoever links first has made it, whole."""
    draft = path.with_name(f".{_NAME}-{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
