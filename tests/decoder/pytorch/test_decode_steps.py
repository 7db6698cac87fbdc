"""Decode steps as on a GPU, in Triton's interpreter: in batches of few sizes, from memory that stays where it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engines.checkpoint import read_model_config
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.engine import PyTorchEngine
from engines.pytorch.factory import build_engine
from engines.pytorch.model.attention import PagedAttention
from engines.pytorch.model.batch import Batch
from engines.pytorch.model.fused_operations import FusedOperations
from engines.pytorch.model.registry import load_weights
from engines.pytorch.model.table_attention import table_attention
from engines.pytorch.model.text_model import TextModel
from tests.support.harness import Answer, Prompt, greedy, make_prompt, make_settings

CPU = torch.device("cpu")
TOKENS = 6


class WatchedModel(TextModel):
    """Notes the addresses that each decode step reads, by its size."""

    def __init__(self, folder: Path, *, fused: bool) -> None:
        self.config = read_model_config(folder)
        weights = load_weights(folder, self.config, CPU, torch.float32)
        operations = FusedOperations(self.config.rms_norm_eps) if fused else None
        super().__init__(self.config, weights, operations, PagedAttention(table_attention))
        self.addresses: defaultdict[int, set[tuple[int, ...]]] = defaultdict(set)

    def __call__(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        if not batch.spans:
            seen = batch.decoding
            assert seen is not None
            read = (batch.token_ids, batch.positions, seen.tables, seen.rows, seen.lengths, batch.yielding)
            self.addresses[len(batch.token_ids)].add(tuple(tensor.data_ptr() for tensor in read))
        return super().__call__(batch, cache)


@pytest.fixture
def answer_all(checkpoint: Path) -> Callable[..., tuple[list[Answer], WatchedModel]]:
    """Answers prompts at once, by table."""

    def answer_all(
        prompts: list[Prompt], *, fused: bool = False, **settings: object
    ) -> tuple[list[Answer], WatchedModel]:
        model = WatchedModel(checkpoint, fused=fused)
        answers = {str(number): Answer() for number in range(len(prompts))}
        engine: PyTorchEngine = build_engine(
            make_settings(checkpoint, **settings), model.config, model,
            lambda session, event: answers[session](event), CPU, torch.float32, lag=1, by_table=True,
        )  # fmt: skip
        for session, prompt in zip(answers, prompts, strict=True):
            engine.open(session, prompt.request(greedy(TOKENS)))
            for piece in prompt.pieces(20):
                engine.feed(session, piece)
        while engine.step():
            pass
        return list(answers.values()), model

    return answer_all


def test_tokens_are_those_of_transformers(
    checkpoint: Path, answer_all: Callable[..., tuple[list[Answer], WatchedModel]]
) -> None:
    """One is still prefilled while two generate."""
    prompts = [make_prompt(checkpoint, frames, frames=frames, greedy_tokens=TOKENS) for frames in (0, 2, 20)]
    answers, _ = answer_all(prompts, fused=True, max_step_tokens=66)
    assert [tuple(answer.ids) for answer in answers] == [prompt.greedy for prompt in prompts]


def test_a_size_reads_the_same_memory_in_every_step(
    checkpoint: Path, answer_all: Callable[..., tuple[list[Answer], WatchedModel]]
) -> None:
    """What is recorded as a graph reads these addresses for ever."""
    prompts = [make_prompt(checkpoint, seed, frames=0) for seed in range(5)]
    answers, model = answer_all(prompts, max_batch=6)
    assert all(len(answer.ids) == TOKENS for answer in answers)
    assert {size: len(addresses) for size, addresses in model.addresses.items()} == {8: 1}
    fewer, model = answer_all(prompts[:3], max_batch=6)
    assert [answer.ids for answer in fewer] == [answer.ids for answer in answers[:3]]
    assert {size: len(addresses) for size, addresses in model.addresses.items()} == {4: 1}
