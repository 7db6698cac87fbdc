import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines import create as engines
from engines.pytorch.engine import PyTorchEngine
from engines.settings import ENGINES, Settings
from engines.tensorrt_llm.engine import TensorRTLLMEngine
from engines.tensorrt_llm.factory import create_engine
from engines.tensorrt_llm.support import probe
from tests.decoder.tensorrt_llm import double
from tests.decoder.tensorrt_llm.conftest import llm_arguments
from tests.support.harness import make_settings

Place = Callable[..., Settings]


@pytest.fixture
def place(checkpoint: Path, tmp_path: Path) -> Place:
    """Settings for a version folder of its own, with other `llm.json` arguments."""

    def make(arguments: dict[str, Any] | None, **changes: object) -> Settings:
        (tmp_path / "checkpoint").symlink_to(checkpoint)
        if arguments is not None:
            (tmp_path / "llm.json").write_text(json.dumps(arguments))
        return make_settings(tmp_path / "checkpoint", engine="tensorrt_llm", **changes)

    return make


def test_a_machine_without_tensorrt_llm_is_told_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"parameter engine is 'tensorrt_llm', and the package is not importable"):
        probe()


def test_a_version_with_one_handle_per_request_is_refused_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    double.install(monkeypatch, "single")
    with pytest.raises(ValueError, match=r"TensorRT-LLM 1\.2\.1 takes one embedding per request.*install 1\.3\.0rc29"):
        probe()


def test_the_probe_asks_the_interface_and_not_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    double.install(monkeypatch, "handles")
    assert not probe().layouts
    double.install(monkeypatch, "layouts")
    assert probe().layouts
    assert probe().encoder_argument


def test_a_repository_that_was_not_built_for_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    double.install(monkeypatch, "layouts")
    with pytest.raises(ValueError, match=r"llm\.json is missing.*make repository"):
        create_engine(place(None), lambda *_: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_cache_tokens": 100}, "parameter kv_cache_tokens is 100; the repository was built for 4096"),
        ({"block_size": 32}, "parameter block_size is 32; the repository was built for 16"),
        ({"context_length": 4096}, "parameter context_length is 4096; the repository was built for 2048"),
        ({"max_batch": 8}, "parameter max_batch is 8; the repository was built for 64"),
        ({"max_step_tokens": 512}, "parameter max_step_tokens is 512; the repository was built for 1024"),
    ],
)
def test_settings_that_differ_from_the_build_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, place: Place, changes: dict[str, int], message: str
) -> None:
    double.install(monkeypatch, "layouts")
    with pytest.raises(ValueError, match=message):
        create_engine(place(llm_arguments(), **changes), lambda *_: None)


def test_every_engine_that_the_settings_accept_has_a_factory() -> None:
    assert tuple(engines.FACTORIES) == ENGINES


def test_the_engine_parameter_chooses_the_engine(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    double.install(monkeypatch, "layouts")
    for name, kind in (("tensorrt_llm", TensorRTLLMEngine), ("pytorch", PyTorchEngine)):
        engine = engines.create_engine(make_settings(checkpoint, engine=name), lambda *_: None)
        assert type(engine) is kind
        engine.close()
