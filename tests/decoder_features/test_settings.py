"""The parameters that choose precisions and lengths."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from engines.create import create_engine
from tests.decoder.harness import make_settings
from tests.decoder.test_settings import read


def test_by_default_everything_is_the_checkpoints() -> None:
    settings = read()
    assert (settings.weights, settings.kv_cache_dtype, settings.yarn_factor) == ("auto", "auto", None)
    chosen = read(weights="int4", kv_cache_dtype="int8", yarn_factor="2.5")
    assert (chosen.weights, chosen.kv_cache_dtype, chosen.yarn_factor) == ("int4", "int8", 2.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
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
    monkeypatch.setattr("engines.tensorrt_llm.engine.probe", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", type("Module", (), {"LLM": None}))
    settings = dataclasses.replace(make_settings(checkpoint, engine="tensorrt_llm"), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="are for the engine 'pytorch'"):
        create_engine(settings, lambda *_: None)
