"""Writes tokens with their positions, and notes what they are to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from build.demo_checkpoint.training.attention_supervision import Pointer
from build.demo_checkpoint.vocabulary import encode, encode_spans, special
from build.demo_checkpoint.world.questions import Evidence
from build.demo_checkpoint.world.world import COLUMNS, ROWS


@dataclass(frozen=True)
class Tokens:
    """Part of a prompt: `token_ids` `[tokens]`, M-RoPE `positions` `[3, tokens]`, `asked` `[tokens]` marks answers,
    to be predicted."""

    token_ids: np.ndarray
    positions: np.ndarray
    asked: np.ndarray
    pointers: tuple[Pointer, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Span:
    """A text that was written: its tokens, and the characters of each."""

    text: str
    tokens: range
    characters: tuple[tuple[int, int], ...]

    def part(self, start: int, length: int) -> list[int]:
        """The tokens whose characters overlap those from `start` on.

        text    F r o m _ 1 . 5 _ s e c o n d s      part(5, 3), "1.5",
        tokens  0 0 0 0 1 2 3 4 5 5 5 5 5 5 5 5      is [2, 3, 4]
        """
        pairs = zip(self.tokens, self.characters, strict=True)
        return [token for token, (first, last) in pairs if first < start + length and last > start]


class Writer:
    """Writes tokens one after the other, each with its M-RoPE position, and notes what they are to look at."""

    def __init__(self, position: int, *, in_video: bool) -> None:
        self.position = position
        """The next token's."""
        self.token_ids: list[int] = []
        self.spans: list[Span] = []
        self.pointers: list[Pointer] = []
        self._positions: list[tuple[int, int, int]] = []
        self._asked: list[bool] = []
        self._in_video = in_video

    def text(self, text: str, *, asked: bool = False) -> Span:
        """Every token is one position further."""
        token_ids, characters = encode_spans(text)
        span = Span(text, range(len(self.token_ids), len(self.token_ids) + len(token_ids)), characters)
        for token in token_ids:
            self._add(token, (self.position,) * 3, asked)
            self.position += 1
        self.spans.append(span)
        return span

    def cells(self, order: np.ndarray) -> list[int]:
        """The visual tokens of a temporal patch, in an order. All are at one time, and at their own row and column;
        the next token is past the larger of rows and columns. Returns their tokens by cell."""
        first, time = len(self.token_ids), self.position
        for cell in order:
            position = time, time + int(cell) // COLUMNS, time + int(cell) % COLUMNS
            self._add(special("<|video_pad|>"), position, False)
        self.position += max(ROWS, COLUMNS)
        return [first + int(index) for index in np.argsort(order)]

    def point(
        self, site: str, token: int, keys: Sequence[int], *, in_video: bool = True, evidence: Evidence | None = None
    ) -> None:
        """The token is to look at one of the tokens `keys` of the video, or of its own part."""
        self.pointers.append(Pointer(site, token, tuple(keys), in_video, evidence))

    def point_to_digits(self) -> None:
        """Where a time is written, its unit looks at its digits."""
        for token, token_id in enumerate(self.token_ids):
            if token_id not in units():
                continue
            for back in (1, 3, 4, 5):
                if self.token_ids[token - back] not in _digits():
                    break
                self.point(f"digit {back}", token, (token - back,), in_video=self._in_video)

    def tokens(self) -> Tokens:
        return Tokens(
            np.array(self.token_ids), np.array(self._positions).T, np.array(self._asked), tuple(self.pointers)
        )

    def _add(self, token_id: int, position: tuple[int, int, int], asked: bool) -> None:
        self.token_ids.append(token_id)
        self._positions.append(position)
        self._asked.append(asked)


@lru_cache(maxsize=1)
def units() -> frozenset[int]:
    """The tokens that end a time."""
    return frozenset(encode(unit)[0] for unit in (" seconds", "秒"))


@lru_cache(maxsize=1)
def _digits() -> frozenset[int]:
    return frozenset(encode(str(digit))[0] for digit in range(10))
