"""Training sequences: a video once, then many questions that do not see each other, each exactly as if it were asked
alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo_checkpoint.model import Layout
from demo_checkpoint.questions import Question
from demo_checkpoint.vocabulary import build_tokenizer
from demo_checkpoint.world import COLUMNS, ROWS

CELLS = ROWS * COLUMNS


@dataclass(frozen=True)
class Tokens:
    """Part of a prompt: `token_ids` `[tokens]`, M-RoPE `positions` `[3, tokens]`, `asked` `[tokens]` marks answers,
    to be predicted."""

    token_ids: np.ndarray
    positions: np.ndarray
    asked: np.ndarray

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Example:
    """The prompt up to the end of a video, and every question as it would follow alone. `rows` `[visual tokens, 2]`:
    the temporal patch and the cell of each visual token."""

    video: Tokens
    questions: tuple[Tokens, ...]
    rows: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Examples as `LanguageModel.forward` takes them.

    `asked` `[tokens]` marks the tokens to predict; `owners` `[tokens]` numbers the questions of all examples, in order,
    from 0; -1 is no question. `patch_ends` `[temporal patches]` are the indices of the tokens that close the temporal
    patches of all videos, in order.
    """

    token_ids: Tensor
    positions: Tensor
    layout: Layout
    visual: Tensor
    asked: Tensor
    owners: Tensor
    patch_ends: Tensor

    def to(self, device: torch.device) -> Batch:
        layout = replace(self.layout, causal=self.layout.causal.to(device), mask=self.layout.mask.to(device))
        tensors = (self.token_ids, self.positions, self.visual, self.asked, self.owners, self.patch_ends)
        token_ids, positions, *others = (tensor.to(device) for tensor in tensors)
        return Batch(token_ids, positions, layout, *others)


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return build_tokenizer()


@lru_cache(maxsize=200_000)
def encode(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text, add_special_tokens=False).ids)


def special(name: str) -> int:
    token: int | None = tokenizer().token_to_id(name)
    if token is None:
        raise KeyError(f"{name} is no token of the vocabulary")
    return token


def write_example(
    timestamps: Sequence[str],
    questions: Sequence[Question],
    *,
    order: np.ndarray | None = None,
    gaps: np.ndarray | None = None,
) -> Example:
    """The prompt of a video and its questions.

    `order` `[6]` writes the visual tokens of every temporal patch in another order, each with its own position, so
    that place cannot be read from order; `gaps` `[patches]` are added to the positions before each patch, so that far
    apart is familiar.
    """
    token_ids: list[int] = list(encode("<|im_start|>user\n<|vision_start|>"))
    positions: list[tuple[int, int, int]] = [(i, i, i) for i in range(len(token_ids))]
    rows: list[tuple[int, int]] = []
    order = np.arange(CELLS) if order is None else order
    pad, vision_start, vision_end = special("<|video_pad|>"), special("<|vision_start|>"), special("<|vision_end|>")
    at = len(token_ids)
    for patch, timestamp in enumerate(timestamps):
        at += 0 if gaps is None else int(gaps[patch])
        text = (*encode(f"<{timestamp} seconds>"), vision_start)
        positions += [(at + i,) * 3 for i in range(len(text))]
        at += len(text)
        positions += [(at, at + int(cell) // COLUMNS, at + int(cell) % COLUMNS) for cell in order]
        at += max(ROWS, COLUMNS)
        positions.append((at, at, at))
        at += 1
        token_ids += [*text, *[pad] * CELLS, vision_end]
        rows += [(patch, int(cell)) for cell in order]
    token_ids.append(vision_end)
    positions.append((at, at, at))
    at += 1
    video = Tokens(np.array(token_ids), np.array(positions).T, np.zeros(len(token_ids), bool))
    return Example(video, tuple(_write_question(question, at) for question in questions), np.array(rows))


def _write_question(question: Question, at: int) -> Tokens:
    token_ids: list[int] = []
    asked: list[bool] = []
    for number, turn in enumerate(question.turns):
        opening = "\n<|im_start|>user\n" if number else ""
        prompt = encode(f"{opening}{turn.question}<|im_end|>\n<|im_start|>assistant\n")
        answer = encode(f"{turn.answer}<|im_end|>")
        token_ids += [*prompt, *answer]
        asked += [False] * len(prompt) + [True] * len(answer)
    return Tokens(np.array(token_ids), np.tile(at + np.arange(len(token_ids)), (3, 1)), np.array(asked))


def collate(examples: Sequence[Example]) -> Batch:
    """Pads videos to the longest and packs each video's questions into chunks of equal length; padding sees itself
    only."""
    # Few different shapes: oneDNN compiles its kernels for each.
    video_tokens = _round_up(max(len(example.video) for example in examples), 32)
    asked_tokens = _round_up(max(len(question) for example in examples for question in example.questions), 64)
    packed = [_pack([len(question) for question in example.questions], asked_tokens) for example in examples]
    chunks = max(chunk for places in packed for chunk, _ in places) + 1
    videos = len(examples)
    total = videos * (video_tokens + chunks * asked_tokens)
    token_ids, owners = np.zeros(total, np.int64), np.full(total, -1)
    positions, asked = np.zeros((3, total), np.float32), np.zeros(total, bool)
    seen = np.zeros((videos, chunks, video_tokens), bool)
    owner = 0
    for index, (example, places) in enumerate(zip(examples, packed, strict=True)):
        seen[index, :, : len(example.video)] = True
        starts = [index * video_tokens]
        starts += [videos * video_tokens + (index * chunks + chunk) * asked_tokens + offset for chunk, offset in places]
        for part, start in zip((example.video, *example.questions), starts, strict=True):
            span = slice(start, start + len(part))
            token_ids[span], positions[:, span], asked[span] = part.token_ids, part.positions, part.asked
            if part is not example.video:
                owners[span] = owner
                owner += 1
    own = owners[videos * video_tokens :].reshape(videos * chunks, asked_tokens)
    same = (own[:, :, None] == own[:, None, :]) & np.tril(np.ones((asked_tokens, asked_tokens), bool))
    seen = np.broadcast_to(
        seen.reshape(videos * chunks, 1, video_tokens), (videos * chunks, asked_tokens, video_tokens)
    )
    mask = _added(np.concatenate([seen, same], axis=2)[:, None])
    causal = _added(np.tril(np.ones((1, 1, video_tokens, video_tokens), bool)))
    pad, vision_end = special("<|video_pad|>"), special("<|vision_end|>")
    return Batch(
        torch.from_numpy(token_ids),
        torch.from_numpy(positions),
        Layout(videos, video_tokens, chunks, asked_tokens, causal, mask),
        torch.from_numpy(np.flatnonzero(token_ids == pad)),
        torch.from_numpy(asked),
        torch.from_numpy(owners),
        torch.from_numpy(np.flatnonzero((token_ids == vision_end) & (np.roll(token_ids, 1) == pad))),
    )


def _added(seen: np.ndarray) -> Tensor:
    """What is added to the scores: 0 where a token is seen, a large negative number where it is not."""
    return torch.from_numpy(np.where(seen, np.float32(0), np.float32(-30_000)))


def _round_up(tokens: int, multiple: int) -> int:
    return -(-tokens // multiple) * multiple


def _pack(lengths: Sequence[int], chunk_tokens: int) -> list[tuple[int, int]]:
    """The chunk of each question and where in it the question starts: each goes into the first chunk with room,
    longest first."""
    used: list[int] = []
    places = {}
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        chunk = next((c for c, tokens in enumerate(used) if tokens + lengths[index] <= chunk_tokens), len(used))
        if chunk == len(used):
            used.append(0)
        places[index] = (chunk, used[chunk])
        used[chunk] += lengths[index]
    return [places[index] for index in range(len(lengths))]
