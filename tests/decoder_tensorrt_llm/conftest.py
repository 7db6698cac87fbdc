"""TensorRT-LLM engines on the double, and checkpoints that lie as a GPU repository has them."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoint_factory import make_checkpoint
from decoder.harness import Answer, Prompt, make_settings
from decoder_tensorrt_llm import double
from engine.protocol import Event
from engine.sampling_parameters import SamplingParameters
from engine.settings import Settings
from engine.tensorrt_llm.tensorrt_llm_engine import TensorRTLLMEngine, create_engine

CACHE_TOKENS = 4096


def llm_arguments(**changes: Any) -> dict[str, Any]:
    """As `build/engines/llm_arguments.py` writes them."""
    return {
        "max_batch_size": 64,
        "max_num_tokens": 1024,
        "max_seq_len": 2048,
        "enable_chunked_prefill": True,
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


class Harness:
    """A TensorRT-LLM engine and the answers of its sessions."""

    def __init__(self, settings: Settings) -> None:
        self.answers: dict[str, Answer] = {}
        self.events: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self.engine: TensorRTLLMEngine = create_engine(settings, self._hear)

    def _hear(self, session: str, event: Event) -> None:
        self.events.put((session, event))
        self.answers[session](event)

    def open(self, session: str, prompt: Prompt, sampling: SamplingParameters) -> Answer:
        answer = self.answers[session] = Answer()
        self.engine.open(session, prompt.request(sampling))
        return answer

    def start(self, session: str, prompt: Prompt, sampling: SamplingParameters, *cuts: int) -> Answer:
        answer = self.open(session, prompt, sampling)
        for piece in prompt.pieces(*cuts):
            self.engine.feed(session, piece)
        return answer

    def ask(self, prompt: Prompt, sampling: SamplingParameters, *cuts: int) -> Answer:
        answer = self.start("alone", prompt, sampling, *cuts)
        assert answer.over.wait(60), "the engine did not finish"
        return answer


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
