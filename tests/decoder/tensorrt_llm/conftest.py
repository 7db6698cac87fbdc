"""TensorRT-LLM engines on the double, and checkpoints that lie as a GPU repository has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from build.assemble.checkpoint_factory import make_checkpoint
from tests.decoder.tensorrt_llm import double
from tests.support.harness import Harness, make_settings

CACHE_TOKENS = 4096


def llm_arguments(**changes: Any) -> dict[str, Any]:
    """As `build/gpu/llm_arguments.py` writes them."""
    return {
        "max_batch_size": 64,
        "max_num_tokens": 1024,
        "max_seq_len": 2048,
        "enable_chunked_prefill": True,
        "guided_decoding_backend": "llguidance",
        "kv_cache_config": {
            "max_tokens": CACHE_TOKENS,
            "dtype": "auto",
            "enable_block_reuse": True,
            "tokens_per_block": 16,
        },
        "scheduler_config": {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"},
        "cuda_graph_config": {"batch_sizes": [1, 2], "enable_padding": True},
        **changes,
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("version") / "checkpoint"
    make_checkpoint(folder, seed=1)
    (folder.parent / "llm.json").write_text(json.dumps(llm_arguments()))
    return folder


@pytest.fixture(params=["handles", "layouts"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which version of TensorRT-LLM is installed."""
    double.install(monkeypatch, request.param)
    return str(request.param)


@pytest.fixture
def harness(kind: str, checkpoint: Path) -> Iterator[Callable[..., Harness]]:
    """Starts engines that end with the test; keyword arguments change the settings."""
    started: list[Harness] = []

    def start(**changes: object) -> Harness:
        started.append(Harness(make_settings(checkpoint, engine="tensorrt_llm", **changes)))
        return started[-1]

    yield start
    for one in started:
        one.engine.close()
        assert double.LLM.last.shut_down
