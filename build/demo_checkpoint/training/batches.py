"""Batches of training sequences: padded, with what each token sees and is to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from build.demo_checkpoint.model import Layout
from build.demo_checkpoint.training.attention_supervision import Part, Pointers
from build.demo_checkpoint.training.prompts import Example
from build.demo_checkpoint.vocabulary import special
from build.demo_checkpoint.world.questions import Evidence


@dataclass(frozen=True)
class Batch:
    """Examples as `LanguageModel.forward` takes them.

    `asked` `[tokens]` marks the tokens to predict; `owners` `[tokens]` numbers the questions of all examples, in order,
    from 0; -1 is no question. `pointers`: for a site, those of the videos and those of the questions. `sought`: tokens
    that look for evidence, and for which.
    """

    token_ids: Tensor
    positions: Tensor
    layout: Layout
    visual: Tensor
    asked: Tensor
    owners: Tensor
    pointers: dict[tuple[str, Part], Pointers]
    sought: tuple[tuple[int, Evidence], ...]

    def to(self, device: torch.device) -> Batch:
        layout = replace(self.layout, causal=self.layout.causal.to(device), mask=self.layout.mask.to(device))
        tensors = (self.token_ids, self.positions, self.visual, self.asked, self.owners)
        token_ids, positions, visual, asked, owners = (tensor.to(device) for tensor in tensors)
        pointers = {key: mine.to(device) for key, mine in self.pointers.items()}
        return Batch(token_ids, positions, layout, visual, asked, owners, pointers, self.sought)


def collate(examples: Sequence[Example]) -> Batch:
    """Pads videos and their questions, one behind the other, to the longest; padding sees itself only."""
    # Few different shapes: oneDNN compiles its kernels for each.
    video_tokens = _round_up(max(len(example.video) for example in examples), 32)
    asked_tokens = _round_up(max(sum(map(len, example.questions)) for example in examples), 64)
    videos = len(examples)
    total = videos * (video_tokens + asked_tokens)
    token_ids, owners = np.zeros(total, np.int64), np.full(total, -1)
    positions, asked = np.zeros((3, total), np.float32), np.zeros(total, bool)
    seen = np.zeros((videos, 1, video_tokens), bool)
    pointers: dict[tuple[str, Part], list[tuple[int, int, list[int]]]] = defaultdict(list)
    sought: list[tuple[int, Evidence]] = []
    owner = 0
    for video, example in enumerate(examples):
        seen[video, :, : len(example.video)] = True
        for pointer in example.video.pointers:
            pointers[pointer.site, "video"].append((video, pointer.row, list(pointer.keys)))
        parts, starts = [example.video], [video * video_tokens]
        offset = 0
        for question in example.questions:
            start = videos * video_tokens + video * asked_tokens + offset
            owners[start : start + len(question)] = owner
            owner += 1
            parts.append(question)
            starts.append(start)
            for pointer in question.pointers:
                shift = 0 if pointer.in_video else video_tokens + offset
                keys = [shift + key for key in pointer.keys]
                pointers[pointer.site, "asked"].append((video, offset + pointer.row, keys))
                if pointer.evidence and pointer.evidence.sought:
                    sought.append((start + pointer.row, pointer.evidence))
            offset += len(question)
        for part, start in zip(parts, starts, strict=True):
            span = slice(start, start + len(part))
            token_ids[span], positions[:, span], asked[span] = part.token_ids, part.positions, part.asked
    own = owners[videos * video_tokens :].reshape(videos, asked_tokens)
    same = (own[:, :, None] == own[:, None, :]) & np.tril(np.ones((asked_tokens, asked_tokens), bool))
    seen = np.broadcast_to(seen, (videos, asked_tokens, video_tokens))
    mask = _added(np.concatenate([seen, same], axis=2)[:, None])
    causal = _added(np.tril(np.ones((1, 1, video_tokens, video_tokens), bool)))
    return Batch(
        torch.from_numpy(token_ids),
        torch.from_numpy(positions),
        Layout(videos, video_tokens, asked_tokens, causal, mask),
        torch.from_numpy(np.flatnonzero(token_ids == special("<|video_pad|>"))),
        torch.from_numpy(asked),
        torch.from_numpy(owners),
        {key: _pointers(entries) for key, entries in pointers.items()},
        tuple(sought),
    )


def _pointers(entries: Sequence[tuple[int, int, list[int]]]) -> Pointers:
    videos, rows, keys = zip(*entries, strict=True)
    owners = np.repeat(np.arange(len(keys)), [len(mine) for mine in keys])
    return Pointers(
        *(torch.tensor(values) for values in (videos, rows, owners, [key for mine in keys for key in mine]))
    )


def _added(seen: np.ndarray) -> Tensor:
    """The term that is added to the scores: 0 where a token is seen, a large negative number where it is not."""
    return torch.from_numpy(np.where(seen, np.float32(0), np.float32(-30_000)))


def _round_up(tokens: int, multiple: int) -> int:
    return -(-tokens // multiple) * multiple
