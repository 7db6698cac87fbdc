"""Stage 2's features, taken over from Triton's memory where they are."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class TritonTensor(Protocol):
    """The part of `pb_utils.Tensor` that is used; a GPU's memory is read through DLPack."""

    def is_cpu(self) -> bool: ...

    def as_numpy(self) -> NDArray[Any]: ...

    def __dlpack__(self, stream: int | None = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


def own_copy(tensor: TritonTensor) -> torch.Tensor:
    """The same values on the same device: the tensor's memory is Triton's, and goes with the request."""
    if tensor.is_cpu():
        return torch.from_numpy(np.array(tensor.as_numpy()))
    # On the engine's stream the copy would wait for the step that is being computed, and Triton with it.
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        copy = torch.from_dlpack(tensor).clone()
    stream.synchronize()
    # The engine reads it on its own stream: not before that is done may the memory be used again.
    copy.record_stream(torch.cuda.default_stream(copy.device))
    return copy
