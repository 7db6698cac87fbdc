"""Positions beyond the trained length, against transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engines.checkpoint import Yarn, read_model_config
from engines.pytorch.model.rotary import RotaryEmbedding
from tests.support import reference
from tests.support.harness import Harness, greedy, make_prompt

CPU = torch.device("cpu")
ORIGINAL = 64


@pytest.fixture
def stretched(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes the checkpoint one of 4 times its trained length, which is shorter than the prompts here."""

    def stretch(**rope: object) -> Path:
        folder = tmp_path / "stretched"
        shutil.copytree(checkpoint, folder)
        config = json.loads((folder / "config.json").read_text())
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
        config["text_config"]["rope_scaling"] |= {**yarn, **rope}
        config["text_config"]["max_position_embeddings"] = 4 * ORIGINAL
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return stretch


@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"factor": 3.0, "original_max_position_embeddings": 262144},
        {"beta_fast": 8, "beta_slow": 2, "truncate": False},
        {"attention_factor": 0.75},
        {"mscale": 0.7, "mscale_all_dim": 1.3},
        {"factor": None},
    ],
    ids=lambda rope: ",".join(rope) or "as published",
)
def test_rotary_positions_are_stretched_as_in_transformers(
    stretched: Callable[..., Path], rope: dict[str, object]
) -> None:
    folder = stretched(**rope)
    positions = torch.tensor([[0, 5, 900, 1_000_000], [0, 7, 31, 1_000_000], [0, 2, 777, 1_000_000]])
    ours = RotaryEmbedding(read_model_config(folder), CPU)(positions, torch.float32)
    theirs = reference.load_model.__wrapped__(folder).model.language_model.rotary_emb(
        torch.zeros(1), positions[:, None]
    )
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine[:, 0], expected[0], rtol=0, atol=1e-6)


def test_prompts_beyond_the_trained_length_are_continued_as_by_transformers(
    stretched: Callable[..., Path], harness: Callable[..., Harness]
) -> None:
    folder = stretched()
    prompt = make_prompt(folder, 2, frames=6, words=30, greedy_tokens=24)
    assert prompt.next_position > ORIGINAL
    assert harness(folder).ask(prompt, greedy(24)).ids == list(prompt.greedy)


def test_the_operators_factor_is_the_checkpoints(
    stretched: Callable[..., Path], checkpoint: Path, harness: Callable[..., Harness]
) -> None:
    stretched_config = read_model_config(stretched())
    assert stretched_config.yarn == Yarn.by_factor(4.0, ORIGINAL)
    prompt = make_prompt(checkpoint, 2, frames=6, words=30)
    plain = harness().ask(prompt, greedy(24)).ids
    assert harness(yarn_factor=1.0).ask(prompt, greedy(24)).ids == plain
    assert harness(yarn_factor=40.0).ask(prompt, greedy(24)).ids != plain
