"""`make bench-gpu` where there is no GPU: its logic at a tiny shape, and no figure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gpu_engine
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_the_measurement_works_and_gives_no_figure_without_a_gpu() -> None:
    roots = [ROOT / part for part in ("tests", "build", "model_repository/decoder/1")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "perf" / "gpu_engine.py", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    tried = run("--shape", "tiny")
    assert tried.returncode == 0, tried.stderr
    for what in ("decode step, batch 2", "prefill, 128 tokens", "4-bit weights, 8-bit cache"):
        assert what in tried.stdout
    assert "No GPU figure exists until it runs on a GPU." in tried.stdout
    assert not (ROOT / "perf" / "results" / "bench-gpu.json").exists()
    assert 20 < gpu_engine.planned_bytes("4B", gpu_engine.CONTEXT) / 2**30 < 24
    refused = run()
    assert refused.returncode == 1
    assert "no GPU: PyTorch sees none" in refused.stderr
