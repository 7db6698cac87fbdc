"""Features as Triton hands them over, on either side of the bus; what a GPU does is a double's here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from sessions.features import own_copy

if TYPE_CHECKING:
    from collections.abc import Iterator


class Tensor:
    """Stands for `pb_utils.Tensor`."""

    def __init__(self, values: np.ndarray, *, on_gpu: bool) -> None:
        self.values = values
        self._on_gpu = on_gpu

    def is_cpu(self) -> bool:
        return not self._on_gpu

    def as_numpy(self) -> np.ndarray:
        assert not self._on_gpu, "Triton: tensors on a GPU have no NumPy array"
        return self.values

    def __dlpack__(self, stream: int | None = None) -> Any:
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class Stream:
    """Stands for `torch.cuda.Stream`: what was done, in order."""

    done: list[str]

    def synchronize(self) -> None:
        self.done.append("waited")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Stream.done = []

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        stream.done.append("copied")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: f"the engine's on {device}")
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: Stream.done.append(f"kept for {stream}"))
    return Stream.done


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 8), (0, 1, 8)])
def test_a_copy_outlives_triton_s_memory(done: list[str], on_gpu: bool, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    tensor = Tensor(values.copy(), on_gpu=on_gpu)
    copy = own_copy(tensor)
    tensor.values[:] = -1
    assert copy.dtype == torch.float32
    assert torch.equal(copy, torch.from_numpy(values))
    # On a GPU the copy is there before Triton takes the memory back, and stays until the engine has read it.
    assert done == (["copied", "waited", "kept for the engine's on cpu"] if on_gpu else [])
