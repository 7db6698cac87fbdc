"""Tensors between host and device. On a GPU neither way waits for what it computes: through pinned memory, in order."""

from __future__ import annotations

from typing import Any

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of a tensor of the host, for what is launched after it; on a CPU the tensor itself."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class HostCopy:
    """A copy of a tensor, which may still be computed, on its way to the host."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        self._tensor = tensor
        if tensor.device.type == "cuda":
            self._tensor = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._tensor.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def tolist(self) -> list[Any]:
        """Waits for it; not for what was launched later."""
        if self._copied is not None:
            self._copied.synchronize()
        numbers: list[Any] = self._tensor.tolist()
        return numbers
