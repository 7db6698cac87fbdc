"""Names of a prompt's temporal patches: two that show the same have the same name, and are encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preprocess.cache.disk_cache import digest
from preprocess.plan.selection import Selection
from preprocess.settings import Patching
from preprocess.workers.reader import Reader

_HEXADECIMAL_DIGITS = 32


def patch_digests(selections: Sequence[Selection], patching: Patching, reader: Reader) -> list[str]:
    """32 hexadecimal digits per temporal patch, of all that its pixels follow from: file, frames, size and code."""
    digests = []
    for selection in selections:
        content = reader.digest(selection.attachment)
        size = selection.size
        digests += [digest("patch", content, frames, size, patching) for frames in _frames(selection, patching)]
    return [name[:_HEXADECIMAL_DIGITS] for name in digests]


def _frames(selection: Selection, patching: Patching) -> Iterator[tuple[int, ...]]:
    """The frames of each temporal patch; none of an image, which has nothing to choose from."""
    if selection.indices is None:
        yield ()
        return
    for first in range(0, len(selection.indices), patching.frames):
        yield tuple(selection.indices[first : first + patching.frames].tolist())
