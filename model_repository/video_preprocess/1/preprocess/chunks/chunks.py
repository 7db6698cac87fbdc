"""Chunks: the prompt cut into pieces that are decoded, encoded and prefilled one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from preprocess.chunks.decode import Images
from preprocess.chunks.patches import temporal_patch
from preprocess.chunks.video_patches import temporal_patches
from preprocess.chunks.vision_positions import VisionPositions, no_positions, vision_positions
from preprocess.plan.plan import Plan
from preprocess.plan.prompt import Prompt
from preprocess.plan.selection import Selection
from preprocess.settings import Patching, Settings
from preprocess.workers.reader import Reader

CHUNKS = 16
"""A prompt is cut into so many chunks at least: while the first is decoded and the last is prefilled, other stages have
nothing of it to do."""
LEAST_TOKENS = 256
"""A chunk has at least so many, however short the prompt: with fewer a device is not kept busy."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """The prompt's next tokens, and the pictures of the visual ones among them: temporal patches of one medium."""

    begin: int
    """How many of the prompt's tokens lie before it."""
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
        begin=0,
        token_ids=np.zeros(0, np.int32),
        positions=np.zeros((3, 0), np.int32),
        patches=np.zeros((0, group, values), np.uint8),
        vision=no_positions(settings.vision, group),
    )


def prompt_chunk(prompt: Prompt, settings: Settings) -> Chunk:
    """The whole prompt without pictures: what it says, before anything is decoded."""
    return replace(empty_chunk(settings), token_ids=prompt.token_ids, positions=prompt.positions)


def data_chunks(plan: Plan, settings: Settings, reader: Reader, chunk_tokens: int, held_tokens: int) -> Iterator[Chunk]:
    """Decodes as far as the next chunk needs. The chunks' tokens, joined, are the prompt's, its end in the last.

    A chunk has at most `chunk_tokens` visual tokens, fewer for a short prompt, but one temporal patch at least. The
    prompt's first `held_tokens` tokens are not decoded and sent, but for the rest of a temporal patch that is not
    wholly among them.
    """
    prompt = plan.prompt
    run = sum(run.end <= held_tokens for run in prompt.runs)
    cursor = min(held_tokens, prompt.runs[run].start) if run < len(prompt.runs) else held_tokens
    if run == len(prompt.runs):
        rest = prompt_chunk(prompt, settings)
        yield replace(
            rest, begin=cursor, token_ids=rest.token_ids[cursor:], positions=rest.positions[:, cursor:], last=True
        )
        return
    missing = sum(shown.tokens for shown in prompt.runs[run:])
    wanted = min(chunk_tokens, max(missing // CHUNKS, LEAST_TOKENS))
    selections = list(selections_after(plan.selections, run, settings.patching))
    images = Images(reader, [(shown.attachment, shown.size) for shown in selections if shown.video is None])
    for selection in selections:
        if selection.video is None:
            patches = iter([_still(images.take(selection.attachment, selection.size), settings.patching)])
        else:
            patches = temporal_patches(selection, settings.patching, reader)
        size = max(wanted // (selection.medium.rows * selection.medium.columns), 1)
        while len(taken := _take(patches, size)):
            run += len(taken)
            last = run == len(prompt.runs)
            end = len(prompt.token_ids) if last else prompt.runs[run - 1].end
            merge = settings.patching.merge
            yield Chunk(
                begin=cursor,
                token_ids=prompt.token_ids[cursor:end],
                positions=prompt.positions[:, cursor:end],
                patches=taken,
                vision=vision_positions(
                    selection.medium.rows * merge, selection.medium.columns * merge, settings.vision, settings.patching
                ),
                last=last,
            )
            cursor = end


def _take(patches: Iterator[npt.NDArray[np.uint8]], count: int) -> npt.NDArray[np.uint8]:
    """The next `count` temporal patches, or as many as there are, each put where it is sent from as it comes."""
    first = next(patches, None)
    if first is None:
        return np.empty(0, np.uint8)
    taken = np.empty((count, *first.shape), np.uint8)
    taken[0] = first
    place = 0
    for place, patch in enumerate(islice(patches, count - 1), start=1):
        taken[place] = patch
    return taken[: place + 1]


def selections_after(selections: Sequence[Selection], temporal_patches: int, patching: Patching) -> Iterator[Selection]:
    """The selections that are left after so many temporal patches."""
    for selection in selections:
        if temporal_patches < selection.temporal_patches:
            yield selection.after(temporal_patches, patching)
        temporal_patches = max(0, temporal_patches - selection.temporal_patches)


def _still(picture: torch.Tensor, patching: Patching) -> npt.NDArray[np.uint8]:
    """An image is a temporal patch that shows the same in all of its frames."""
    return temporal_patch([picture] * patching.frames, patching)
