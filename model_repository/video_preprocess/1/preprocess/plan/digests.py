"""What a prompt's temporal patches show, as names: who sees the same has the same name, and need not see it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preprocess.cache.disk_cache import digest
from preprocess.media.library import Library
from preprocess.plan.selection import Look
from preprocess.settings import Patching

_HEXADECIMAL_DIGITS = 32


def patch_digests(looks: Sequence[Look], patching: Patching, library: Library) -> list[str]:
    """32 hexadecimal digits per temporal patch, of all that its pixels follow from: file, frames, size and code."""
    digests = []
    for look in looks:
        content = library.digest(look.attachment)
        digests += [digest("patch", content, frames, look.size, patching) for frames in _frames(look, patching)]
    return [name[:_HEXADECIMAL_DIGITS] for name in digests]


def _frames(look: Look, patching: Patching) -> Iterator[tuple[int, ...]]:
    """The frames of each temporal patch; none of an image, which has nothing to choose from."""
    if look.indices is None:
        yield ()
        return
    for first in range(0, len(look.indices), patching.frames):
        yield tuple(look.indices[first : first + patching.frames].tolist())
