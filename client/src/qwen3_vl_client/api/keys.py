"""Who is asking: API keys, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

ANONYMOUS = "anonymous"


class ApiKeys:
    """The keys that are accepted, and whose they are."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys` by owner; without any, everybody is `ANONYMOUS`."""
        self._owners = [(owner, _digest(key)) for owner, key in keys.items()]

    def owner(self, key: str | None) -> str | None:
        """Whose key this is; None: nobody's. Takes the same time for every key."""
        if not self._owners:
            return ANONYMOUS
        presented = _digest(key or "")
        found = None
        for owner, digest in self._owners:
            if hmac.compare_digest(presented, digest):
                found = owner
        return found


def read_keys(path: Path) -> dict[str, str]:
    """Keys by owner, from a file with an owner and a key per line; `#` starts a comment.

    Raises:
        ValueError: a line has another form, or an owner has two.
        OSError: the file cannot be read.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] in keys:
            raise ValueError(f"line {number} of {path}: an owner, and its key after a blank, are accepted, once each")
        keys[words[0]] = words[1]
    if not keys:
        raise ValueError(f"{path} holds no key")
    return keys


def _digest(key: str) -> bytes:
    # Of equal length whatever the key: how long one is does not show either.
    return hashlib.sha256(key.encode()).digest()
