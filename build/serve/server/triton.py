"""The Triton server: found in a container or unpacked from its wheel, and its command line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from build.serve.server.prerequisites import check_disk, find_libpython

STAGES = ("decoder", "vision_encoder", "video_preprocess")
ENSEMBLE = "qwen3_vl"

# NVIDIA's images have it here.
SYSTEM = Path("/opt/tritonserver")
REQUIREMENTS = Path(__file__).parents[3] / "requirements" / "triton.txt"
_LOCKED = REQUIREMENTS.parent / "locked" / REQUIREMENTS.name
_INSTALL = ("-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:")

# 55 MB of wheel and what it unpacks to, twice while pip moves it.
_WHEEL_BYTES = 600 * 10**6

_STUB_START_SECONDS = 300


@dataclass(frozen=True)
class Installation:
    """A Triton server on this machine: its binary, its backends, and the folders of shared libraries that it needs."""

    executable: Path
    backends: Path
    libraries: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """The environment to start the server in: a stub takes its packages from the first `python3` on the PATH.

        A stage imports those and its own folder: PYTHONPATH stays with the command that was given it.
        """
        libraries = [str(folder) for folder in self.libraries]
        if inherited := os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(inherited)
        python = str(Path(sys.executable).parent)
        inherited_environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {
            **inherited_environment,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PATH": os.pathsep.join([python, os.environ.get("PATH", os.defpath)]),
        }


@dataclass(frozen=True)
class Endpoints:
    """The address and the ports that a server listens on."""

    host: str
    http: int
    grpc: int
    metrics: int
    health: int

    @property
    def grpc_target(self) -> str:
        """`HOST:PORT` for a gRPC client on this machine."""
        return f"{self._reachable}:{self.grpc}"

    def url(self, port: int) -> str:
        """`http://HOST:PORT` for a client on this machine."""
        return f"http://{self._reachable}:{port}"

    @property
    def _reachable(self) -> str:
        # The addresses that mean all addresses are not ones to connect to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host


def find(cache: Path) -> Installation:
    """The container's own Triton, or else the wheel's, which is unpacked below `cache` the first time."""
    if (SYSTEM / "bin" / "tritonserver").is_file():
        return Installation(SYSTEM / "bin" / "tritonserver", SYSTEM / "backends", ())
    libpython = find_libpython()
    root = _unpacked(cache)
    triton = root / "pytriton" / "tritonserver"
    return Installation(
        triton / "bin" / "tritonserver", triton / "backends", (root / "nvidia_pytriton.libs", libpython.parent)
    )


def _unpacked(cache: Path) -> Path:
    """The folder of the unpacked wheel, with the stub of the running Python where the Python backend looks for it."""
    wheel = next(line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    root = cache / f"{wheel.replace('==', '-')}-python{version}"
    if root.is_dir():
        return root
    check_disk(cache, _WHEEL_BYTES)
    # Complete under its final name or not there at all: an interrupted download is started again.
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}")
    try:
        subprocess.run([sys.executable, *_INSTALL, "--target", partial, "-r", _LOCKED], check=True)
        triton = partial / "pytriton" / "tritonserver"
        stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
        for executable in (shutil.copy(stub, triton / "backends" / "python"), triton / "bin" / "tritonserver"):
            Path(executable).chmod(0o755)
        # Another process may have been faster; its copy is as good as ours.
        if not root.is_dir():
            partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def command(installation: Installation, repository: Path, endpoints: Endpoints) -> list[str]:
    """The command line that serves the assembled `repository`, with each model under explicit control."""
    models = [f"--load-model={name}" for name in (*STAGES, ENSEMBLE)]
    return [
        str(installation.executable),
        f"--model-repository={repository}",
        f"--backend-directory={installation.backends}",
        # A stage's process starts later than the 30 s of the default on a machine that is busy.
        f"--backend-config=python,stub-timeout-seconds={_STUB_START_SECONDS}",
        # The stages' configurations are complete; to complete them, Triton would start every stage twice.
        "--disable-auto-complete-config",
        # Explicit control is what lets the supervisor load one stage again.
        "--model-control-mode=explicit",
        *models,
        f"--http-address={endpoints.host}",
        f"--grpc-address={endpoints.host}",
        f"--metrics-address={endpoints.host}",
        f"--http-port={endpoints.http}",
        f"--grpc-port={endpoints.grpc}",
        f"--metrics-port={endpoints.metrics}",
        # Sessions may generate for minutes; a server that is stopped does not wait for them.
        "--exit-timeout-secs=2",
    ]


def free_ports(host: str, count: int) -> list[int]:
    """Ports that nothing listened on a moment ago, all different."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    try:
        return [listening.getsockname()[1] for listening in sockets]
    finally:
        for listening in sockets:
            listening.close()
