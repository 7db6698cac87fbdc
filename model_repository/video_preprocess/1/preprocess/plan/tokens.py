"""The tokens of a text, a piece at a time: so a long one takes little memory, and may be given up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from preprocess.errors import InvalidArgumentError

PIECE_CHARACTERS = 1 << 15
_MOST_PIECES = 4
"""So many pieces a word may have that cannot be cut: a longer one is refused."""
_UNATTACHED = re.compile("[\\0-\\x7f\u3000-\u3029\u3030-\u3098\u309b-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff01-\uff9d]")
"""Characters that never combine with the one before them, so that a text is normalised alike on both sides."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """A checkpoint's tokenizer. Safe to use from several threads."""

    encoder: Any
    """`tokenizers.Tokenizer`, byte-level, with a split pattern that looks at most one character ahead."""
    longest_added: int
    """Characters of the longest added token."""
    piece_characters: int = PIECE_CHARACTERS

    def is_long(self, text: str) -> bool:
        """Whether a text has more than one piece."""
        return len(text) > self.piece_characters

    def count(self, texts: Sequence[str]) -> list[int]:
        return list(map(len, self.encoder.encode_batch(list(texts))))

    def pieces(self, text: str) -> Iterator[list[int]]:
        """The ids of a text, which are those that the encoder has for the whole.

        Raises InvalidArgumentError for a word that is too long to be encoded at once.
        """
        start = 0
        while start < len(text):
            ids, start = self._piece(text, start)
            yield ids

    def _piece(self, text: str, start: int) -> tuple[list[int], int]:
        """The ids of a piece that begins at `start`, and where it ends."""
        width = self.piece_characters
        while width <= _MOST_PIECES * self.piece_characters:
            window = text[start : start + width]
            (encoding,) = self.encoder.encode_batch([window])
            if start + width >= len(text):
                return encoding.ids, len(text)
            tokens, end = self._cut(window, encoding)
            if tokens:
                return encoding.ids[:tokens], start + end
            width *= 2
        raise InvalidArgumentError(
            f"a text has {width // 2} characters without a break between words, from character {start} of the prompt"
            " on; fewer are accepted"
        )

    def _cut(self, window: str, encoding: Any) -> tuple[int, int]:
        """How many of the tokens, and characters, do not change whatever follows the window; none: 0, 0.

        The split pattern goes from left to right and looks back at nothing: what follows a word has its tokens to
        itself. A word ends where it does because of the character behind it, but for whitespace, whose words depend
        on where all of it ends. An added token may begin in the window and end behind it.
        """
        words, offsets = encoding.word_ids, encoding.offsets
        last = len(window) - self.longest_added
        for token in range(len(words) - 1, 0, -1):
            end = offsets[token][0]
            if words[token] == words[token - 1] or not 0 < end <= last or offsets[token - 1][1] != end:
                continue
            is_space = window[end - 1].isspace() and window[end].isspace()
            if not is_space and _UNATTACHED.match(window, end):
                return token, end
        return 0, 0
