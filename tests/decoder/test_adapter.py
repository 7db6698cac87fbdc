"""Triton's side of stage 3, with stand-ins for its classes: what goes wrong with one request is told to it alone."""

from __future__ import annotations

import importlib.util
import queue
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sessions import signatures
from sessions.inbox import ChunkArrived, StateAsked, StopAsked
from sessions.signatures import Signatures

MODEL = Path(signatures.__file__).parents[1] / "model.py"
NAME = "0" * 32


class TritonError(Exception):
    INVALID_ARG, INTERNAL = "invalid argument", "internal"


@dataclass(frozen=True)
class Tensor:
    values: Any
    claimed: tuple[int, ...] | None = None

    def name(self) -> str:
        return "tensor"

    def shape(self) -> list[int]:
        return list(self.claimed or self.values.shape)

    def is_cpu(self) -> bool:
        return True

    def as_numpy(self) -> np.ndarray:
        if isinstance(self.values, Exception):
            raise self.values
        return self.values


@dataclass
class Request:
    """A request and, by its sender, what it is answered."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    id: str = "r" * 32
    errors: list[Any] = field(default_factory=list)

    def get_response_sender(self) -> Any:
        return SimpleNamespace(send=lambda response, flags: self.errors.append(response.args))

    def request_id(self) -> str:
        return self.id

    def is_cancelled(self) -> bool:
        return False


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    triton = SimpleNamespace(
        TritonError=TritonError,
        InferenceResponse=lambda error: error,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        get_input_tensor_by_name=lambda request, name: request.tensors.get(name),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    monkeypatch.syspath_prepend(str(MODEL.parent))
    spec = importlib.util.spec_from_file_location("decoder_model", MODEL)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    made._inbox = queue.SimpleQueue()
    made._signatures = Signatures(tmp_path)
    return made


def signed(tmp_path: Path, **more: Tensor) -> dict[str, Tensor]:
    ids, positions = np.arange(3, dtype=np.int32), np.zeros((3, 3), np.int32)
    text = f'{{"session": "{NAME}", "index": null, "sent": 1}}'.encode()
    header = signatures.signature(signatures.shared_key(tmp_path), text, ids, positions).encode() + text
    return {
        "chunk_header": Tensor(np.array([header], object)),
        "token_ids": Tensor(ids),
        "positions": Tensor(positions),
        "features": Tensor(np.zeros((1, 1, 8), np.float32)),
        **more,
    }


def test_a_signed_chunk_is_copied_and_handed_on(model: Any, tmp_path: Path) -> None:
    request = Request(signed(tmp_path))
    model.execute([request])
    message = model._inbox.get_nowait()
    assert isinstance(message, ChunkArrived)
    assert (message.chunk.header.session, message.chunk.encode_seconds, request.errors) == (NAME, 0.0, [])
    for name in ("token_ids", "positions", "features"):
        assert not np.shares_memory(np.asarray(getattr(message.chunk, name)), request.tensors[name].values)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("token_ids", Tensor(MemoryError("no"), (3,)), "internal: MemoryError in decoder"),
        ("token_ids", Tensor(MemoryError("no"), (2**62,)), f"tensor has {2**62} elements; at most 16777216"),
        ("positions", Tensor(MemoryError("no"), (3, 2**62)), f"tensor has {3 * 2**62} elements; at most 50331648"),
        ("features", Tensor(MemoryError("no"), (2**31, 2**31, 4)), f"tensor has {2**64} elements; at most 2147483648"),
        ("features", Tensor(MemoryError("no"), (2, 2, 2)), "internal: MemoryError in decoder"),
        ("features", Tensor(np.zeros((1, 1, 8))), "features is torch.float64; torch.float32 is accepted"),
        ("token_ids", Tensor(np.arange(3)), "token_ids is int64; int32 is accepted"),
        ("chunk_header", Tensor(np.array([], object)), "chunk_header has 0 bytes; 64 to 67108864 are accepted"),
        ("chunk_header", Tensor(np.array([b"0" * 70], object)), "chunk_header is not signed by stage 1"),
        ("chunk_header", Tensor(np.array([b"0" * (2**26 + 1)], object)), "chunk_header has 67108865 bytes; 64 to"),
        ("encode_seconds", Tensor(np.full(1, np.nan, np.float32)), "encode_seconds is nan; a number of seconds from 0"),
    ],
)
def test_a_request_that_is_wrong_is_refused_and_others_go_on(
    model: Any, tmp_path: Path, name: str, tensor: Tensor, message: str
) -> None:
    wrong, right = Request(signed(tmp_path, **{name: tensor})), Request(signed(tmp_path))
    model.execute([wrong, right])
    ((told, code),) = wrong.errors
    assert message in told
    assert code == (TritonError.INTERNAL if told.startswith("internal") else TritonError.INVALID_ARG)
    assert isinstance(model._inbox.get_nowait(), ChunkArrived)
    assert model._inbox.empty()


def test_a_key_that_is_gone_and_cannot_be_made_ends_no_stage(model: Any, tmp_path: Path) -> None:
    tensors = signed(tmp_path)
    (tmp_path / "key").chmod(0o644)
    request = Request(tensors)
    model.execute([request])
    ((told, _),) = request.errors
    assert told == "internal: PermissionError in decoder; the server's log has the details"


def test_only_ids_that_nobody_guesses_can_be_stopped(model: Any) -> None:
    stop = {"stop": Tensor(np.ones(1, bool))}
    short, long, state = Request(stop, "x" * 15), Request(stop, "x" * 16), Request({"stop": Tensor(np.zeros(1, bool))})
    model.execute([short, long, state])
    ((told, code),) = short.errors
    assert told == (
        "invalid_argument: the id 'xxxxxxxxxxxxxxx' could be guessed; a request that is to be stopped needs an id of at"
        " least 16 characters"
    )
    assert code == TritonError.INVALID_ARG
    assert isinstance(asked := model._inbox.get_nowait(), StopAsked)
    assert asked.request_id == "x" * 16
    assert isinstance(model._inbox.get_nowait(), StateAsked)
