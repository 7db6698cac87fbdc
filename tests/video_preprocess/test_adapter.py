"""Triton's side of stage 1, with stand-ins for its classes: what goes wrong with one request is told to it alone."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from preprocess import session
from preprocess.errors import ResourceExhaustedError
from preprocess.request.request import Inputs

MODEL = Path(session.__file__).parents[1] / "model.py"


class Request:
    def __init__(self, parameters: str = "", /, **tensors: Any) -> None:
        self.tensors, self.errors, self._parameters = tensors, list[Any](), parameters

    def inputs(self) -> list[Any]:
        return [tensor(name, values) for name, values in self.tensors.items()]

    def parameters(self) -> str:
        return self._parameters

    def get_response_sender(self) -> Any:
        return SimpleNamespace(send=lambda response, flags: self.errors.append(response))


def tensor(name: str, values: Any) -> Any:
    """Of values, or of a shape that is claimed and an exception that reading it raises."""
    if isinstance(values, np.ndarray):
        return SimpleNamespace(name=lambda: name, shape=lambda: values.shape, as_numpy=lambda: values)
    shape, error = values

    def fail() -> None:
        raise error

    return SimpleNamespace(name=lambda: name, shape=lambda: shape, as_numpy=fail)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    triton = SimpleNamespace(
        TritonError=lambda message: message,
        InferenceResponse=lambda output_tensors, error: error,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    spec = importlib.util.spec_from_file_location("video_preprocess_model", MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    made.submitted = list[Inputs]()
    made._service = SimpleNamespace(submit=lambda inputs, sender: made.submitted.append(inputs))
    made._max_attachments = 4
    return made


def text(*values: bytes) -> np.ndarray:
    return np.array(values, dtype=object)


def test_inputs_and_parameters_are_read(model: Any) -> None:
    parameters = json.dumps({"cache_salt": "alice", "progress": True, "sequence_id": 0})
    model.execute([Request(parameters, text_input=text(b"Hi"), video=text(b"1", b"2"), stream=np.zeros(1, bool))])
    asked = Inputs(text="Hi", videos=(b"1", b"2"), stream=False, progress=True, look=False, cache_salt="alice")
    assert model.submitted == [asked]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Request(text_input=text()), "invalid_argument: text_input has no element; 1 is accepted"),
        (Request(text_input=text(b"a", b"b")), "invalid_argument: text_input has 2 elements; at most 1 are accepted"),
        (Request(text_input=text(b"\xff")), "invalid_argument: text_input is not UTF-8: "),
        (Request(image=text(*b"12345")), "invalid_argument: image has 5 elements; at most 4 are accepted"),
        (Request(video=((2**62, 4), MemoryError())), f"invalid_argument: video has {2**64} elements; at most 4 are"),
        (Request(video=((2,), MemoryError())), "internal: MemoryError in video_preprocess; the server's log has"),
        (Request(text_input=np.zeros(1)), "internal: AttributeError in video_preprocess; the server's log has"),
        (Request("{", text_input=text(b"a")), "invalid_argument: the request's parameters cannot be read: "),
        (Request("7", text_input=text(b"a")), "internal: TypeError in video_preprocess; the server's log has"),
    ],
)
def test_a_request_that_is_wrong_is_refused_and_others_go_on(model: Any, wrong: Request, message: str) -> None:
    model.execute([wrong, Request(text_input=text(b"Hi"))])
    (told,) = wrong.errors
    assert told.startswith(message)
    assert [inputs.text for inputs in model.submitted] == ["Hi"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Failed to increase the shared memory pool size for key 'a': No space left on device", ResourceExhaustedError),
        ("something else", RuntimeError),
    ],
)
def test_a_chunk_that_shared_memory_has_no_room_for_says_so(model: Any, said: str, expected: type[Exception]) -> None:
    triton = sys.modules["triton_python_backend_utils"]
    triton.TritonModelException = RuntimeError
    triton.Tensor = lambda name, values: (name, values)
    triton.InferenceResponse = lambda output_tensors: output_tensors

    def send(response: Any) -> None:
        raise RuntimeError(said)

    nothing = np.zeros(0)
    vision = SimpleNamespace(indices=nothing, weights=nothing, rotary_cos=nothing, rotary_sin=nothing)
    chunk = SimpleNamespace(token_ids=nothing, positions=nothing, patches=nothing, vision=vision)
    sender = type(model).execute.__globals__["ResponseSender"]
    with pytest.raises(expected):
        sender(SimpleNamespace(send=send)).send("{}", chunk)
