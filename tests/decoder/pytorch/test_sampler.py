"""The next token: vLLM's semantics, each row for itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from engines.protocol import Request
from engines.pytorch.cache.block_keys import BlockKeys
from engines.pytorch.sampler import sample
from engines.pytorch.sequence import Sequence
from engines.pytorch.token_counts import TokenCounts
from engines.sampling_parameters import SamplingParameters

CPU = torch.device("cpu")
LOGITS = [2.0, 1.0, 0.0, -1.0, 1.5]


def sequence(
    *, prompt: tuple[int, ...] = (), output: tuple[int, ...] = (), stop: tuple[int, ...] = (), **sampling: Any
) -> Sequence:
    parameters = SamplingParameters(max_tokens=1000, **sampling)
    prompt_ids = np.array(prompt or (3,), np.int32)
    request = Request(prompt_ids, np.zeros((3, len(prompt_ids)), np.int32), (), 1, parameters)
    made = Sequence(
        "s",
        request,
        max_tokens=1000,
        stop_token_ids=frozenset(stop),
        counts=TokenCounts(prompt_ids, len(LOGITS), CPU),
        block_keys=BlockKeys(request, (98, 99), 1000, 16),
    )
    made.cached = len(prompt_ids)
    for token_id in output:
        made.advance(1, torch.tensor([token_id]))
    return made


def sampled(logits: torch.Tensor, sequences: list[Sequence]) -> list[int]:
    return sample(logits, sequences).tolist()


def drawn(draws: int, **arguments: Any) -> Counter[int]:
    """How often each token came; a hundred sequences with seeds of their own draw side by side."""
    sequences = [sequence(seed=seed, **arguments) for seed in range(100)]
    batches = (sampled(torch.tensor([LOGITS] * 100), sequences) for _ in range(draws // 100))
    return Counter(token_id for batch in batches for token_id in batch)


def test_greedy_rows_take_the_likeliest() -> None:
    logits = torch.tensor([LOGITS, LOGITS[::-1]])
    assert sampled(logits, [sequence(), sequence(temperature=1e-6)]) == [0, 4]


@pytest.mark.parametrize(
    ("penalties", "expected"),
    [
        # Token 0 was generated twice, token 4 was in the prompt; unpenalised they have 2.0 and 1.5, token 1 has 1.0.
        ({}, 0),
        ({"presence_penalty": 0.4}, 0),
        ({"presence_penalty": 0.6}, 4),
        ({"frequency_penalty": 0.2}, 0),
        ({"frequency_penalty": 0.3}, 4),
        ({"repetition_penalty": 1.9}, 0),
        ({"repetition_penalty": 2.1}, 1),
    ],
)
def test_penalties(penalties: dict[str, float], expected: int) -> None:
    assert sampled(torch.tensor([LOGITS]), [sequence(prompt=(4,), output=(0, 0), **penalties)]) == [expected]


def test_a_repetition_penalty_makes_negative_logits_less_likely_too() -> None:
    logits = torch.tensor([[-1.0, -1.5, -9.0, -9.0, -9.0]])
    assert sampled(logits, [sequence(prompt=(0,), repetition_penalty=2.0)]) == [1]


def test_penalties_touch_their_own_row_only() -> None:
    logits = torch.tensor([LOGITS, LOGITS])
    penalised = sequence(output=(0,), presence_penalty=2.0)
    assert sampled(logits, [sequence(output=(0,)), penalised]) == [0, 4]


def test_stop_tokens_cannot_come_before_min_tokens() -> None:
    assert sampled(torch.tensor([LOGITS]), [sequence(stop=(0, 4), min_tokens=2, output=(1,))]) == [1]
    assert sampled(torch.tensor([LOGITS]), [sequence(stop=(0, 4), min_tokens=2, output=(1, 1))]) == [0]


def test_draws_follow_the_softmax_at_their_temperature() -> None:
    for temperature in (0.5, 1.0, 3.0):
        expected = (torch.tensor(LOGITS) / temperature).softmax(0)
        counts = drawn(8000, temperature=temperature)
        for token_id, probability in enumerate(expected.tolist()):
            assert counts[token_id] / 8000 == pytest.approx(probability, abs=0.02)


def test_what_top_k_top_p_and_min_p_keep() -> None:
    # Probabilities are about 0.46, 0.28 (token 4), 0.17 (token 1), 0.06, 0.02.
    assert set(drawn(500, temperature=1.0)) == {0, 1, 2, 3, 4}
    assert set(drawn(500, temperature=1.0, top_k=2)) == {0, 4}
    assert set(drawn(500, temperature=1.0, top_k=1)) == {0}
    assert set(drawn(500, temperature=1.0, top_p=0.46)) == {0}
    assert set(drawn(500, temperature=1.0, top_p=0.5)) == {0, 4}
    assert set(drawn(500, temperature=1.0, top_p=0.8)) == {0, 4, 1}
    assert set(drawn(500, temperature=1.0, min_p=0.3)) == {0, 4, 1}
    assert set(drawn(500, temperature=1.0, min_p=1.0)) == {0}
    # top_p is about what top_k has left: 0.46 of 0.74 is 0.62.
    assert set(drawn(500, temperature=1.0, top_k=2, top_p=0.6)) == {0}


def test_a_seed_draws_the_same_beside_other_rows() -> None:
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))

    def run(*others: Sequence) -> list[int]:
        mine = sequence(temperature=1.0, top_k=3, seed=9)
        return [sampled(torch.stack([row] * (1 + len(others))), [*others, mine])[-1] for row in logits]

    assert run() == run(sequence(temperature=2.0, seed=1), sequence(), sequence(temperature=0.1, top_p=0.5))
