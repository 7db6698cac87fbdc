"""The adapter, with stand-ins for Triton's classes: tensors to features and back, each request on its own."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import encoder.session
from encoder.chunk import Chunk

MODEL = Path(encoder.session.__file__).parents[1] / "model.py"


@dataclass(frozen=True)
class Tensor:
    name: str
    values: np.ndarray

    def shape(self) -> list[int]:
        return list(self.values.shape)

    def as_numpy(self) -> np.ndarray:
        return self.values


class TritonError(Exception):
    INVALID_ARG, INTERNAL = "invalid argument", "internal"


@dataclass(frozen=True)
class Response:
    output_tensors: tuple[Tensor, ...] = ()
    error: TritonError | None = None


@pytest.fixture
def model_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    triton = SimpleNamespace(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=Response,
        get_input_tensor_by_name=lambda request, name: Tensor(name, getattr(request, name)),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    spec = importlib.util.spec_from_file_location("vision_encoder_model", MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def initialized(module: ModuleType, onnx: Path, *, threads: str = "1") -> Any:
    parameters = {"onnx": {"string_value": onnx.name}, "threads": {"string_value": threads}}
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_repository": str(onnx.parents[1]),
            "model_version": onnx.parent.name,
            "model_config": json.dumps({"parameters": parameters}),
        }
    )
    return model


def test_each_request_is_answered_on_its_own(model_module: ModuleType, small_tower: Any) -> None:
    model = initialized(model_module, small_tower.onnx)
    good, other = small_tower.chunk(2, 4, 4), small_tower.chunk(1, 2, 6, seed=1)
    bad = replace(good, patches=good.patches[:, :6])
    first, refused, last = model.execute([good, bad, other])
    assert refused.error.args == (
        "invalid_argument: patches has 6 patches a frame; a multiple of 4 is accepted",
        TritonError.INVALID_ARG,
    )
    for response, chunk, grid in ((first, good, (4, 4)), (last, other, (2, 6))):
        features, seconds = response.output_tensors
        np.testing.assert_allclose(features.values, small_tower.expected(chunk, *grid), rtol=0, atol=1e-5)
        assert (features.name, seconds.name) == ("features", "encode_seconds")
        assert seconds.values.shape == (1,)
        assert seconds.values.dtype == np.float32


def test_what_the_encoder_cannot_foresee_is_an_internal_error(
    model_module: ModuleType, small_tower: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = initialized(model_module, small_tower.onnx)
    encode = model._encoder.encode

    def out_of_memory(chunk: Chunk) -> np.ndarray:
        if len(chunk.patches) == 2:
            raise MemoryError("no memory for 2 frames")
        return encode(chunk)

    monkeypatch.setattr(model._encoder, "encode", out_of_memory)
    failed, answered = model.execute([small_tower.chunk(2, 2, 2), small_tower.chunk(1, 2, 2)])
    assert failed.error.args == ("internal: the vision tower failed: no memory for 2 frames", TritonError.INTERNAL)
    assert answered.error is None


@pytest.mark.parametrize("threads", ["-1", "two", ""])
def test_threads_must_be_a_whole_number(model_module: ModuleType, small_tower: Any, threads: str) -> None:
    with pytest.raises(ValueError, match=f"the parameter threads is '{threads}'; a whole number is accepted"):
        initialized(model_module, small_tower.onnx, threads=threads)


def test_configuration_names_what_the_adapter_reads_and_writes() -> None:
    text = (MODEL.parents[1] / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert [tensor.name for tensor in config.input] == [field.name for field in fields(Chunk)]
    assert [tensor.name for tensor in config.output] == ["features", "encode_seconds"]
