"""The size of a picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    height: int
    width: int
