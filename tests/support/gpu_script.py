"""Runs a measurement for a GPU as its make target does, here without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "perf" / "results"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A module of perf/, by name."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"perf.{script}", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
