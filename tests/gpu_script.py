"""Runs a measurement for a GPU as its make target does, here without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "perf" / "results"
IMPORTED_FROM = ("tests", "build", "model_repository/decoder/1", "model_repository/video_preprocess/1")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script in perf/, by name."""
    roots = os.pathsep.join(str(ROOT / folder) for folder in IMPORTED_FROM)
    environment = {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "perf" / script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
