"""Chunks: the prompt cut into pieces that are decoded, encoded and prefilled one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from preprocess.decode import decode_frames, decode_image
from preprocess.look import Look
from preprocess.media import Library
from preprocess.patches import temporal_patch
from preprocess.plan import Plan
from preprocess.recall import recall_patches
from preprocess.resize import resize
from preprocess.settings import Patching, Settings
from preprocess.vision_positions import VisionPositions, no_positions, vision_positions


@dataclass(frozen=True, eq=False)
class Chunk:
    """The prompt's next tokens, and the pictures of the visual ones among them: temporal patches of one medium."""

    token_ids: npt.NDArray[np.int32]
    """[tokens]"""
    positions: npt.NDArray[np.int32]
    """[3, tokens]"""
    patches: npt.NDArray[np.uint8]
    """[frames, patches, 1536]"""
    vision: VisionPositions
    last: bool = False


def empty_chunk(settings: Settings) -> Chunk:
    """Without tokens, and 0 frames of one merge group: every tensor exists in every chunk."""
    patching = settings.patching
    group = patching.merge**2
    values = 3 * patching.frames * patching.patch_pixels**2
    return Chunk(
        token_ids=np.zeros(0, np.int32),
        positions=np.zeros((3, 0), np.int32),
        patches=np.zeros((0, group, values), np.uint8),
        vision=no_positions(settings.vision, group),
    )


def data_chunks(
    plan: Plan, settings: Settings, library: Library, chunk_tokens: int, interrupt: Callable[[], None]
) -> Iterator[Chunk]:
    """Decodes as far as the next chunk needs. The chunks' tokens, joined, are the prompt's, its end in the last.

    A chunk has at most `chunk_tokens` visual tokens, but one temporal patch at least.
    """
    prompt = plan.prompt
    cursor = run = 0
    for look in plan.looks:
        patches = temporal_patches(look, settings.patching, library, interrupt)
        size = max(chunk_tokens // (look.medium.rows * look.medium.columns), 1)
        while batch := list(islice(patches, size)):
            run += len(batch)
            last = run == len(prompt.runs)
            end = len(prompt.token_ids) if last else prompt.runs[run - 1].end
            merge = settings.patching.merge
            yield Chunk(
                token_ids=prompt.token_ids[cursor:end],
                positions=prompt.positions[:, cursor:end],
                patches=np.stack(batch),
                vision=vision_positions(
                    look.medium.rows * merge, look.medium.columns * merge, settings.vision, settings.patching
                ),
                last=last,
            )
            cursor = end
    if not prompt.runs:
        empty = empty_chunk(settings)
        yield Chunk(prompt.token_ids, prompt.positions, empty.patches, empty.vision, last=True)


def temporal_patches(
    look: Look, patching: Patching, library: Library, interrupt: Callable[[], None]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decodes, resizes and cuts what is looked at, or recalls it: one uint8 [patches, 1536] per temporal patch."""
    return recall_patches(look, patching, library, _decoded(look, patching, library, interrupt))


def _decoded(
    look: Look, patching: Patching, library: Library, interrupt: Callable[[], None]
) -> Iterator[npt.NDArray[np.uint8]]:
    if look.video is None or look.indices is None:
        yield temporal_patch([resize(decode_image(library, look.attachment), look.size)] * patching.frames, patching)
        return
    frames = decode_frames(library, look.attachment, look.video.timeline, look.indices, look.size, interrupt)
    while group := list(islice(frames, patching.frames)):
        yield temporal_patch(group + group[-1:] * (patching.frames - len(group)), patching)
