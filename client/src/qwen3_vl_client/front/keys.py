"""Who is asking: API keys, compared in constant time, and not guessed at any speed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from .http.rates import Rates, too_many

ANONYMOUS = "anonymous"
_MAX_USED = 65_536


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


class Guesses:
    """Wrong keys, counted by the address that they came from.

    An address that sent too many may only use keys that it used before: nobody guesses on, and whoever shares the
    address with somebody who does is still served.
    """

    def __init__(self, per_minute: int) -> None:
        self._rates = Rates(per_minute)
        self._used: dict[tuple[str, str], None] = {}
        """Addresses and owners; the pair that was used last is last."""

    def note(self, address: str, owner: str | None) -> None:
        """Notes that a key came from there, and whose it is; None: nobody's.

        Raises:
            RefusedError: 429, too many came from there that were wrong.
        """
        if owner is None:
            wait_seconds = self._rates.take(address)
        elif (address, owner) in self._used:
            wait_seconds = 0.0
        else:
            wait_seconds = self._rates.wait_seconds(address)
        if wait_seconds:
            what = f"more than {self._rates.per_minute} wrong API keys per minute came from your address"
            raise too_many(what, "too_many_wrong_keys", wait_seconds)
        if owner is not None:
            self._used.pop((address, owner), None)
            self._used[address, owner] = None
            if len(self._used) > _MAX_USED:
                del self._used[next(iter(self._used))]


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
