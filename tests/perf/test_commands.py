"""Commands that compare with transformers start by themselves: each is a process that no conftest has prepared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["perf.bench.batching", "perf.bench.engine", "perf.checks.parity"])
def test_a_command_explains_itself(module: str) -> None:
    run = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout
