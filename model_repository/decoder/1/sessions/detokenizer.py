"""Token ids to text, as they come: whole characters only, and nothing that may still turn out to be a stop string."""

from __future__ import annotations

import codecs
import functools
import json
from collections.abc import Sequence

from tokenizers import Tokenizer


class Vocabulary:
    """The bytes of each token of a byte-level tokenizer.

    Raises ValueError for a tokenizer whose decoder is not byte-level: its tokens have no bytes of their own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        decoder = json.loads(tokenizer.to_str())["decoder"] or {}
        if decoder.get("type") != "ByteLevel":
            raise ValueError(f"tokenizer.json has the decoder {decoder.get('type')!r}; 'ByteLevel' is accepted")
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token_id: token.content.encode() for token_id, token in added.items()}
        self._special = frozenset(token_id for token_id, token in added.items() if token.special)

    def token_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        """The bytes that a token stands for; none for ids beyond the tokenizer and for skipped special tokens."""
        if skip_special and token_id in self._special:
            return b""
        if token_id in self._added:
            return self._added[token_id]
        token = self._tokenizer.id_to_token(token_id) or ""
        return bytes(_byte_of_character()[character] for character in token)


class TextStream:
    """One answer's text. `push` tokens one at a time; `finish` returns what was held back."""

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = (), *, skip_special_tokens: bool = True) -> None:
        self._vocabulary = vocabulary
        self._stop = tuple(stop)
        self._skip_special_tokens = skip_special_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """The text that is certain after this token.

        When a stop string is complete, `stopped` turns true and the text ends before it. `may_stop` false leaves stop
        strings that are complete by now in the text.
        """
        return self._advance(
            self._utf8.decode(self._vocabulary.token_bytes(token_id, skip_special=self._skip_special_tokens)), may_stop
        )

    def finish(self) -> str:
        """The rest: an unfinished character as U+FFFD, and the beginning of a stop string that never came."""
        text = self._advance(self._utf8.decode(b"", final=True), may_stop=True)
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _advance(self, new: str, may_stop: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        if may_stop:
            found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
            if found:
                self.stopped, self._held = True, ""
                return text[: min(found)]
        held = _held_back(text, self._stop)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _held_back(text: str, stop: Sequence[str]) -> int:
    """Characters at the end of `text` that could be the beginning of a stop string."""
    longest = max((len(s) for s in stop), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(s.startswith(tail) for s in stop):
            return length
    return 0


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's byte-level alphabet: printable bytes stand for themselves, the others for U+0100 and up in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
