"""`make bench-gpu-vision` where there is no GPU: its logic on a tiny tower, and no figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from build.assemble.vision_tower import VisionTower
from perf.gpu import vision
from tests.support import gpu_script


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_measurement_works_and_gives_no_figure_without_a_gpu() -> None:
    tried = gpu_script.run("gpu.vision", "--size", "tiny")
    assert tried.returncode == 0, tried.stderr
    for way in ("PyTorch, bf16", "torch.compile, bf16", "ONNX Runtime, fp16"):
        assert tried.stdout.count(way) == len(vision.TINY_GRIDS)
    assert "No GPU figure exists until it runs on a GPU." in tried.stdout
    assert not (gpu_script.RESULTS / "bench-gpu-vision.json").exists()
    refused = gpu_script.run("gpu.vision")
    assert refused.returncode == 1
    assert "no GPU: PyTorch sees none" in refused.stderr


def test_operations_are_those_that_the_tower_does(tmp_path: Path) -> None:
    subject = vision.make_subject("tiny", tmp_path, torch.device("cpu"))
    frames, (rows, columns) = 3, (4, 6)
    counter = FlopCounterMode(display=False)
    # Fused attention on a CPU is not counted.
    with counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        VisionTower.load(tmp_path)(**subject.chunk(rows, columns, frames))
    assert counter.get_total_flops() == vision.operations(subject.model, frames, rows * columns)
