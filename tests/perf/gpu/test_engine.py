"""`make bench-gpu` where there is no GPU: its logic at a tiny shape, and no figure."""

from __future__ import annotations

import pytest
import torch

from perf.gpu import engine
from tests.support import gpu_script


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_measurement_works_and_gives_no_figure_without_a_gpu() -> None:
    tried = gpu_script.run("gpu.engine", "--shape", "tiny")
    assert tried.returncode == 0, tried.stderr
    for what in ("decode step, batch 2", "prefill, 128 tokens", "4-bit weights, 8-bit cache"):
        assert what in tried.stdout
    assert "No GPU figure exists until it runs on a GPU." in tried.stdout
    assert not (gpu_script.RESULTS / "bench-gpu.json").exists()
    assert 20 < engine.planned_bytes("4B", engine.CONTEXT) / 2**30 < 24
    refused = gpu_script.run("gpu.engine")
    assert refused.returncode == 1
    assert "no GPU: PyTorch sees none" in refused.stderr
