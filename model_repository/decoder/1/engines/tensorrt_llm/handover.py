"""A prompt as `generate_async` takes it: in TensorRT-LLM's words, encoder/prefill disaggregation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.tensorrt_llm.collected import CollectedPrompt, Run


@dataclass(frozen=True)
class Handover:
    """Arguments of `generate_async`."""

    inputs: dict[str, Any]
    disaggregated_params: Any
    kept: tuple[torch.Tensor, ...]
    """Tensors that must live until the request is done."""


@dataclass(frozen=True)
class _Item:
    """Rows that are handed over by one handle, and the runs of visual tokens that they replace."""

    runs: list[Run]
    rows: torch.Tensor


def hand_over(
    prompt: CollectedPrompt, next_position: int, tokenizer: Tokenizer, *, layouts: bool, cache_salt: str
) -> Handover:
    """Fresh handles for `prompt`: the consumer unlinks each one after reading it.

    With layouts, token ids go over as they are and a handle has the rows of a whole piece. Without, the prompt goes
    over as text with one placeholder per run, and every run has a handle of its own. ValueError for a prompt that is
    another one when its text is tokenised.
    """
    token_ids = prompt.all_token_ids()
    pieces = [_Item(runs, rows) for runs, rows in prompt.pieces_with_rows()]
    if not pieces:
        return Handover({"prompt_token_ids": token_ids.tolist()}, None, ())
    items = pieces if layouts else [item for piece in pieces for item in _split(piece)]
    positions = torch.from_numpy(prompt.all_positions()).unsqueeze(1).contiguous()
    delta = torch.tensor([next_position - len(token_ids)], dtype=torch.int32)
    kept = (*(item.rows for item in items), positions, delta)
    text = "" if layouts else _collapsed_text(token_ids, items, tokenizer)
    from tensorrt_llm.disaggregated_params import DisaggregatedParams

    parameters = DisaggregatedParams(
        request_type="context_and_generation",
        multimodal_embedding_handles=[_handle(item.rows) for item in items],
        multimodal_hashes=[_hash(item.rows, cache_salt) for item in items],
        mrope_position_ids_handle=_handle(positions),
        mrope_position_deltas_handle=_handle(delta),
        **({"multimodal_layout": _layout(token_ids, items)} if layouts else {}),
    )
    inputs = {"prompt": text} if text else {"prompt": "given by token ids"}
    return Handover(inputs, parameters, kept)


def _split(piece: _Item) -> list[_Item]:
    """One item per run, each alone in its memory."""
    rows = piece.rows.split([run.tokens for run in piece.runs])
    return [_Item([run], part.clone()) for run, part in zip(piece.runs, rows, strict=True)]


def _handle(tensor: torch.Tensor) -> dict[str, Any]:
    """A handle to host memory: one to GPU memory needs `pidfd_getfd`, which containers often forbid."""
    from tensorrt_llm._torch.shared_tensor import SharedTensorContainer

    handle: dict[str, Any] = SharedTensorContainer.from_tensor(tensor).dump_to_dict()
    return handle


def _hash(rows: torch.Tensor, cache_salt: str) -> list[int]:
    """Eight 32-bit integers that stand for the content and its owner: equal rows of one owner share KV blocks."""
    content = rows.contiguous().view(torch.uint8).numpy().tobytes()
    digest = hashlib.blake2b(content, key=hashlib.sha256(cache_salt.encode()).digest(), digest_size=32).digest()
    return np.frombuffer(digest, np.int32).tolist()


def _collapsed_text(token_ids: NDArray[np.int32], items: list[_Item], tokenizer: Tokenizer) -> str:
    """The prompt's text with one placeholder per run, which TensorRT-LLM tokenises and expands again."""
    kept = np.ones(len(token_ids), bool)
    for item in items:
        for run in item.runs:
            kept[run.begin + 1 : run.begin + run.tokens] = False
    collapsed = token_ids[kept].tolist()
    text: str = tokenizer.decode(collapsed, skip_special_tokens=False)
    if tokenizer.encode(text, add_special_tokens=False).ids != collapsed:
        raise ValueError("the prompt's text is tokenised in another way than the prompt was")
    return text


def _layout(token_ids: NDArray[np.int32], items: list[_Item]) -> Any:
    """The tokens that the items' rows replace. With an item of two runs and one of one run:

    token   0  1  2  3  4  5  6  7  8  9 10 11
    item       0  0        0  0     1  1  1

    lengths        4, 3         rows of each item
    positions      1, 8         where its first run begins
    run offsets    0, 2, 3      which runs are an item's
    run positions  1, 5, 8
    run lengths    2, 2, 3
    mask cumsum    0 1 2 2 2 3 4 4 5 6 7 7
    """
    from tensorrt_llm.inputs.multimodal import DisaggPrefillMultimodalInputs

    runs = [run for item in items for run in item.runs]
    visual = np.zeros(len(token_ids), np.int64)
    for run in runs:
        visual[run.begin : run.begin + run.tokens] = 1
    lengths = [len(item.rows) for item in items]
    return DisaggPrefillMultimodalInputs(
        prompt_token_ids=token_ids.tolist(),
        multimodal_lengths=lengths,
        multimodal_positions=[item.runs[0].begin for item in items],
        multimodal_embedding_lengths=lengths,
        multimodal_item_run_cu_offsets=[0, *accumulate(len(item.runs) for item in items)],
        multimodal_run_positions=[run.begin for run in runs],
        multimodal_run_lengths=[run.tokens for run in runs],
        multimodal_embed_mask_cumsum=torch.from_numpy(visual.cumsum()),
    )
