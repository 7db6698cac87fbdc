"""Runs the peers in an environment of their own, `make .cache/peers/.installed`: their NumPy is not ours."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = _ROOT / ".cache" / "peers"


@dataclass(frozen=True)
class PeerResult:
    """`seconds` until all frames are there, which is when the first is; `times` of the frames in seconds."""

    seconds: float
    peak_mb: float
    times: tuple[float, ...]


class PeerError(Exception):
    """A peer did not read the video; says why in one line."""


def run_peer(peer: str, video: Path, frames: int, *, timeout_seconds: float = 3600) -> PeerResult:
    """`peer`: "ssim", or a backend of qwen-vl-utils: "torchcodec", "decord", "torchvision"."""
    python = _ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise PeerError("the peers are not installed: make .cache/peers/.installed")
    libraries = sorted(_ENVIRONMENT.glob("lib/python*/site-packages/nvidia/*/lib"))
    command = [str(python), str(Path(__file__).with_name("peer.py")), peer, str(video), str(frames)]
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))},
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"not done after {timeout_seconds:g} s") from None
    if run.returncode:
        lines = run.stderr.strip().splitlines()
        raise PeerError(lines[-1][:100] if lines else f"exit status {run.returncode}")
    result = json.loads(run.stdout.splitlines()[-1])
    return PeerResult(result["seconds"], result["peak_mb"], tuple(result["times"]))
