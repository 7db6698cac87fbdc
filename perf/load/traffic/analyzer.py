"""NVIDIA's perf_analyzer: unpacked from the wheel that carries it, run on a scenario, its profile read."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from build.serve.server import triton
from perf.load.traffic.target import CACHE, Target

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ROOT / "requirements" / "perf_analyzer.txt"
PERCENTILES = (50, 90, 95, 99)
_MESSAGE_CHARACTERS = 500


class AnalyzerError(RuntimeError):
    """perf_analyzer did not measure. The message holds what it printed."""


@dataclass(frozen=True)
class Load:
    """Either `concurrency` requests at a time, or `rate` requests a second with Poisson arrivals."""

    concurrency: int | None = None
    rate: float | None = None

    @property
    def options(self) -> list[str]:
        if self.concurrency is not None:
            return [f"--concurrency-range={self.concurrency}"]
        return [f"--request-rate-range={self.rate}:{self.rate}:1", "--request-distribution=poisson"]

    @property
    def value(self) -> float:
        return float(self.concurrency if self.concurrency is not None else self.rate or 0.0)


@dataclass(frozen=True)
class Scenario:
    """A model and what it is asked: `data` has one request after the other, each tensor's JSON by its name."""

    name: str
    model: str
    data: Sequence[Mapping[str, Any]]
    streaming: bool = True


@dataclass(frozen=True)
class Profile:
    """A run as perf_analyzer saw it. Seconds, one value per request; `gaps`: between one response and the next.

    offered_per_second: requests as they were really sent: the Poisson arrivals of few requests stray from their rate
    usages: what the ensemble's last responses said
    errors: how many requests had no response at all
    """

    seconds: float
    offered_per_second: float
    first: list[float]
    total: list[float]
    gaps: list[float]
    usages: list[dict[str, Any]]
    errors: int

    @property
    def requests_per_second(self) -> float:
        return len(self.total) / self.seconds


def strings(*values: str) -> dict[str, Any]:
    """A BYTES tensor of texts, as perf_analyzer's input data has it."""
    return {"content": list(values), "shape": [len(values)]}


def binary(content: bytes) -> dict[str, Any]:
    """A BYTES tensor of one value that is no text: base64 of Triton's own encoding, the length first."""
    return {"b64": base64.b64encode(struct.pack("<I", len(content)) + content).decode(), "shape": [1]}


def array(values: np.ndarray) -> dict[str, Any]:
    """Any other tensor."""
    return {"b64": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode(), "shape": list(values.shape)}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """`{"p50": …, "p90": …, "p95": …, "p99": …}`; empty without values."""
    if not values:
        return {}
    found = np.percentile(np.asarray(values), PERCENTILES)
    return {f"p{percentile}": float(value) for percentile, value in zip(PERCENTILES, found, strict=True)}


def measure(scenario: Scenario, load: Load, requests: int, target: Target, folder: Path) -> Profile:
    """Sends so many requests; leaves perf_analyzer's own CSV and JSON in `folder`. Raises AnalyzerError."""
    executable, environment = _install()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{scenario.name}-{'concurrency' if load.concurrency else 'rate'}-{load.value:g}"
    data = folder / f"{scenario.name}-input.json"
    data.write_text(json.dumps({"data": scenario.data}))
    exported = folder / f"{name}.json"
    exported.unlink(missing_ok=True)
    command = [
        str(executable),
        *("-m", scenario.model, "-u", target.grpc, "-i", "grpc"),
        "--async",
        *(["--streaming"] if scenario.streaming else []),
        f"--input-data={data}",
        *load.options,
        f"--request-count={requests}",
        "--percentile=95",
        *("-f", f"{folder / name}.csv"),
        "--verbose-csv",
        f"--profile-export-file={exported}",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not exported.is_file():
        # After the reason it may print all its options.
        printed = (done.stdout + done.stderr)[:_MESSAGE_CHARACTERS]
        raise AnalyzerError(f"perf_analyzer ended with status {done.returncode}:\n{printed}")
    return read_profile(exported)


def read_profile(path: Path) -> Profile:
    """Reads a file of `--profile-export-file`. Bytes of binary inputs in it are no UTF-8 and do not matter."""
    document = json.loads(path.read_text(encoding="utf-8", errors="replace"), strict=False)
    requests = document["experiments"][0]["requests"]
    answered = [request for request in map(_without_empty_end, requests) if request["response_timestamps"]]
    if not answered:
        raise AnalyzerError(f"{path.name} has {len(requests)} requests and no response")
    first, total, gaps, usages = [], [], [], []
    for request in answered:
        times = [request["timestamp"], *request["response_timestamps"]]
        spans = [(after - before) / 1e9 for before, after in itertools.pairwise(times)]
        first.append(spans[0])
        total.append(sum(spans))
        gaps += spans[1:]
        if usage := request["response_outputs"][-1].get("usage"):
            usages.append(json.loads(usage))
    sent = sorted(request["timestamp"] for request in requests)
    seconds = (max(request["response_timestamps"][-1] for request in answered) - sent[0]) / 1e9
    offered = (len(sent) - 1) / max((sent[-1] - sent[0]) / 1e9, 1e-9)
    return Profile(seconds, offered, first, total, gaps, usages, len(requests) - len(answered))


def _without_empty_end(request: dict[str, Any]) -> dict[str, Any]:
    """Triton may say that nothing follows in a response of its own, which perf_analyzer counts like any other."""
    outputs = request["response_outputs"]
    if not outputs or any(value != "" for value in outputs[-1].values()):
        return request
    return {**request, "response_outputs": outputs[:-1], "response_timestamps": request["response_timestamps"][:-1]}


def _install() -> tuple[Path, dict[str, str]]:
    """The binary and its environment. Its wheel pins nothing that our environment has: it gets a folder of its own."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    root = CACHE / "-".join(["perf_analyzer", lines[0].partition("==")[2]])
    if not root.is_dir():
        draft = root.with_name(f"{root.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
        locked = REQUIREMENTS.parent / "locked" / REQUIREMENTS.name
        subprocess.run([sys.executable, *install, "--target", draft, "-r", locked], check=True)
        (draft / "bin" / "perf_analyzer").chmod(0o755)
        (draft / "lib").mkdir()
        # Debian has it as libb64-0d; Triton's wheel carries a copy.
        for library in triton.find(ROOT / ".cache" / "triton").libraries:
            for copy in library.glob("libb64-*.so.0d"):
                (draft / "lib" / "libb64.so.0d").symlink_to(copy.resolve())
        draft.rename(root)
    libraries = [root / "lib", root / "nvidia" / "cuda_runtime" / "lib"]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    path = os.pathsep.join([*map(str, libraries), *([inherited] if inherited else [])])
    return root / "bin" / "perf_analyzer", {**os.environ, "LD_LIBRARY_PATH": path}
