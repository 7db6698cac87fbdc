"""config.pbtxt's parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engines.settings import Settings, read_settings

CONFIG = Path(__file__).parents[2] / "model_repository/decoder/config.pbtxt"


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
    ],
)
def test_mistakes_name_the_parameter(name: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(**{name: value})
