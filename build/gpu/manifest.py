"""The manifest of a built repository: from what and for which machine. Another machine refuses it by name at start."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from build.gpu.planner.planning import Fit
from build.gpu.steps import sha256

MANIFEST = "manifest.json"
PACKAGES = ("tensorrt", "nvidia-modelopt", "torch", "transformers", "onnx", "onnxruntime", "numpy")


class ManifestError(RuntimeError):
    """A repository cannot be served here; the message says what it was built for and what is here."""


@dataclass(frozen=True)
class Machine:
    """The GPU and the TensorRT that Triton has here; empty strings where there are none."""

    gpu: str
    compute_capability: str
    tensorrt: str


def write_manifest(
    repository: Path, fit: Fit, checkpoint: Path, machine: Machine, server_options: Sequence[str]
) -> None:
    """Write what `repository` was built from and for, the fit's figures, and the hash of every file but weights.

    server_options: what Triton is to be started with.
    """
    content = {
        "profile": fit.profile.key,
        "model": fit.model.name,
        "checkpoint": checkpoint.name,
        "weights": fit.weights,
        "kv_cache": fit.kv_cache,
        "context_tokens": fit.context_tokens,
        "cache_tokens": fit.cache_tokens,
        "engine": fit.profile.engine,
        "machine": asdict(machine),
        "versions": installed_versions(PACKAGES),
        "server_options": list(server_options),
        "memory_bytes": {part.name: part.bytes for part in fit.parts},
        "files": {
            str(path.relative_to(repository)): sha256(path)
            for path in sorted(repository.rglob("*"))
            if path.is_file() and path.suffix != ".safetensors" and _is_content(path)
        },
    }
    (repository / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def check_manifest(repository: Path, machine: Machine) -> tuple[str, ...]:
    """The options that Triton is to be started with.

    Raises ManifestError when `repository` was built for another GPU or TensorRT, or its files have changed.
    """
    path = repository / MANIFEST
    if not path.is_file():
        raise ManifestError(f"{repository} has no {MANIFEST}: build it with `make repository`")
    manifest = json.loads(path.read_text())
    built = Machine(**manifest["machine"])
    # A repository for a CPU has nothing that was compiled.
    if built.gpu:
        _check_machine(repository, built, machine)
    for name, digest in manifest["files"].items():
        file = repository / name
        if not file.is_file():
            raise ManifestError(f"{file} is missing: build again with `make repository`")
        if sha256(file) != digest:
            raise ManifestError(f"{file} is not the file that was built: build again with `make repository`")
    return tuple(manifest["server_options"])


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of packages by name. A package that is not installed is left out."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _check_machine(repository: Path, built: Machine, machine: Machine) -> None:
    if built.compute_capability != machine.compute_capability:
        raise ManifestError(
            f"{repository} was built on {_named(built)} and this machine has {_named(machine)}:"
            " a plan runs on the architecture that it was built on only. Build it here with `make repository`"
        )
    if built.tensorrt != machine.tensorrt:
        raise ManifestError(
            f"{repository} was built with TensorRT {built.tensorrt or '(none)'}, and here is"
            f" {machine.tensorrt or '(none)'}: use the image that it was built in, or build again"
        )


def this_machine() -> Machine:
    """Asks the driver and the installed TensorRT."""
    gpu, compute_capability = _first_gpu()
    return Machine(gpu=gpu, compute_capability=compute_capability, tensorrt=_tensorrt_version())


def _first_gpu() -> tuple[str, str]:
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return "", ""
    name, compute_capability = output.splitlines()[0].rsplit(",", 1)
    return name.strip(), compute_capability.strip()


def _tensorrt_version() -> str:
    # NVIDIA's images name the TensorRT that their Triton loads; TensorRT-LLM brings a package of another version along.
    if in_image := os.environ.get("TRT_VERSION"):
        return in_image
    try:
        import tensorrt
    except ImportError:
        return ""
    return tensorrt.__version__


def _named(machine: Machine) -> str:
    return f"{machine.gpu} (compute capability {machine.compute_capability})" if machine.gpu else "no GPU"


def _is_content(path: Path) -> bool:
    return path.name != MANIFEST and "__pycache__" not in path.parts
