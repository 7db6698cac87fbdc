"""config.pbtxt's parameters."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engines.create import create_engine
from engines.settings import Settings, read_settings
from tests.support.harness import make_settings

CONFIG = Path(__file__).parents[3] / "model_repository/decoder/config.pbtxt"


def parameters(**changes: str) -> dict[str, str]:
    config = text_format.Parse(CONFIG.read_text(), ModelConfig())
    return {name: parameter.string_value for name, parameter in config.parameters.items()} | changes


def read(**changes: str) -> Settings:
    return read_settings(parameters(**changes), Path("/models/decoder/1"))


def test_the_configuration_as_it_is_in_the_repository() -> None:
    settings = read()
    assert settings.checkpoint == Path("/models/decoder/1/checkpoint")
    assert (settings.kv_cache_tokens, settings.context_length, settings.max_step_tokens) == (None, None, 1024)
    assert settings.credits_directory.name.startswith("qwen3_vl_credits_")
    assert set(parameters()) == set(Settings.__dataclass_fields__)


def test_values_are_read() -> None:
    settings = read(kv_cache_tokens="4096", silence_seconds="0.5", checkpoint="/elsewhere", credits_directory="/c")
    assert (settings.kv_cache_tokens, settings.silence_seconds) == (4096, 0.5)
    assert (settings.checkpoint, settings.credits_directory) == (Path("/elsewhere"), Path("/c"))


def test_by_default_everything_is_the_checkpoints() -> None:
    settings = read()
    assert (settings.weights, settings.kv_cache_dtype, settings.yarn_factor) == ("auto", "auto", None)
    chosen = read(weights="int4", kv_cache_dtype="int8", yarn_factor="2.5")
    assert (chosen.weights, chosen.kv_cache_dtype, chosen.yarn_factor) == ("int4", "int8", 2.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("block_size", "0", "parameter block_size is '0'; an integer of at least 1 is accepted"),
        ("block_size", "a", "parameter block_size is 'a'; an integer"),
        ("kv_cache_tokens", "-1", "parameter kv_cache_tokens is '-1'; an integer"),
        ("silence_seconds", "nan", "parameter silence_seconds is 'nan'; a number of seconds above 0"),
        ("silence_seconds", "soon", "parameter silence_seconds is 'soon'"),
        ("owner_share", "0", "parameter owner_share is '0'; a number above 0 and at most 1 is accepted"),
        ("owner_share", "1.5", "parameter owner_share is '1.5'; a number above 0 and at most 1"),
        ("owner_share", "half", "parameter owner_share is 'half'; a number above 0"),
        ("dtype", "int8", "parameter dtype is 'int8'; accepted are auto, float32, float16, bfloat16"),
        ("engine", "vllm", "parameter engine is 'vllm'; accepted are pytorch"),
        ("device", "", "parameter device is empty"),
        ("max_step_tokens", "64", "parameter max_step_tokens is 64; more than max_batch, 64, is accepted"),
        ("weights", "int3", "parameter weights is 'int3'; accepted are auto, int8, int4"),
        ("kv_cache_dtype", "fp4", "parameter kv_cache_dtype is 'fp4'; accepted are auto, float32, .* int8"),
        ("yarn_factor", "0.5", "parameter yarn_factor is '0.5'; a number of at least 1 is accepted"),
        ("yarn_factor", "long", "parameter yarn_factor is 'long'; a number"),
    ],
)
def test_mistakes_name_the_parameter(name: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(**{name: value})


@pytest.mark.parametrize("change", [{"weights": "int8"}, {"kv_cache_dtype": "int8"}, {"yarn_factor": 2.0}], ids=str)
def test_tensorrt_llm_has_these_from_its_build(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    monkeypatch.setattr("engines.tensorrt_llm.factory.probe", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", type("Module", (), {"LLM": None}))
    settings = dataclasses.replace(make_settings(checkpoint, engine="tensorrt_llm"), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="are for the engine 'pytorch'"):
        create_engine(settings, lambda *_: None)
