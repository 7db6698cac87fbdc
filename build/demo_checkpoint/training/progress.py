"""Progress of a training: its state in files, its means in lines of text."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch


def save(path: Path, state: object) -> None:
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    temporary.replace(path)


class Log:
    """Prints running means now and then."""

    def __init__(self, stage: str, steps: int, every: int = 20) -> None:
        self.stage, self.steps, self.every = stage, steps, every
        self.values: dict[str, list[float]] = defaultdict(list)
        self.started = time.monotonic()

    def add(self, step: int, loss: float, shares: dict[str, float]) -> None:
        for name, value in {"loss": loss, **shares}.items():
            self.values[name].append(value)
        if (step + 1) % self.every == 0:
            means = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in self.values.items())
            print(f"{self.stage} {step + 1}/{self.steps}, {time.monotonic() - self.started:.0f} s: {means}", flush=True)
            self.values.clear()
