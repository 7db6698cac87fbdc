"""KV caches in less precision than is computed with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engines.checkpoint import read_model_config
from engines.pytorch.cache import layer_cache
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.cache.layer_cache import Int8LayerCache
from tests.decoder.pytorch.model.test_weights import logits_of, relative_error
from tests.support.harness import Harness, greedy, make_prompt

CPU = torch.device("cpu")
SCATTERED = tuple(n for pair in zip(range(0, 40, 2), range(63, 23, -2), strict=True) for n in pair)


def test_each_token_and_head_has_its_scale() -> None:
    torch.manual_seed(0)
    kept = Int8LayerCache(
        torch.zeros(3, 40, 16, dtype=torch.int8), torch.zeros(3, 40, 1, dtype=torch.float16), torch.float32
    )
    # Heads of a token, and tokens of a block, may differ by orders of magnitude.
    states = torch.randn(8, 3, 16) * torch.logspace(-2, 2, 24).view(8, 3, 1)
    states[5] = 0
    slots = torch.tensor([3, 9, 10, 11, 20, 21, 39, 0])
    kept.write(slots, states)
    most = states.abs().amax(dim=2, keepdim=True)
    assert ((kept.read(slots).transpose(0, 1) - states).abs() <= most / 127 * 0.51).all()
    assert kept.read(slice(9, 13)).shape == (3, 4, 16)
    assert torch.equal(kept.read(slice(21, 22)), torch.zeros(3, 1, 16))


@pytest.mark.parametrize("blocks", [tuple(range(64)), SCATTERED], ids=["neighbours", "scattered"])
@pytest.mark.parametrize("most_tokens", [65_536, 24], ids=["at once", "in parts"])
def test_logits_are_close(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, ...], most_tokens: int
) -> None:
    monkeypatch.setattr(layer_cache, "_MAX_COPIED_TOKENS", most_tokens)
    prompt = make_prompt(checkpoint, 4)
    exact = logits_of(checkpoint, prompt)
    errors = [
        relative_error(logits_of(checkpoint, prompt, kept=kept, blocks=blocks), exact)
        for kept in (torch.float32, torch.float16, torch.bfloat16, torch.int8)
    ]
    assert errors[0] < 1e-5
    assert 1e-6 < errors[1] < 2e-3
    assert 1e-4 < errors[2] < 2e-2
    assert 1e-3 < errors[3] < 5e-2


def test_eight_bits_take_a_quarter_and_the_scales(checkpoint: Path) -> None:
    config = read_model_config(checkpoint)

    def size(kept: torch.dtype) -> int:
        cache = KVCache(config, 8, 16, CPU, torch.float32, kept)
        return sum(m.nbytes for states in (*cache.keys, *cache.values) for m in states.memory)

    assert size(torch.int8) / size(torch.float32) == (config.head_dim + 2) / (4 * config.head_dim)


def test_prefixes_are_shared_in_eight_bits(checkpoint: Path, harness: Callable[..., Harness]) -> None:
    """Copying a part of a block takes the scales along."""
    started = harness(kv_cache_dtype="int8")
    prompt = make_prompt(checkpoint, 4)
    first = started.ask(prompt, greedy(24))
    again = started.ask(prompt, greedy(24))
    assert again.held > 0
    assert again.ids == first.ids
