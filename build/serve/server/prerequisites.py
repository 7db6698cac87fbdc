"""Checks what this machine must offer before Triton is started, with messages that say what to do."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

# Triton's wheel has stubs for these, and the pinned packages have wheels for them.
PYTHON_VERSIONS = ((3, 11), (3, 12))
# The platform tag of the wheel, manylinux_2_35.
GLIBC_VERSION = (2, 35)
SHARED_MEMORY = Path("/dev/shm")
# A stage's stub maps 1 MiB at start and grows with its chunks: the 64 MiB that containers get by default are soon full.
SHARED_MEMORY_BYTES = 256 * 2**20

# PyTorch and what comes with it.
ENVIRONMENT_BYTES = 6 * 2**30

_GIBIBYTE = 2**30


class PrerequisiteError(RuntimeError):
    """This machine lacks something. The message says what, and what to install or change."""


def check_platform(
    python: tuple[int, int] = sys.version_info[:2],
    system: str = platform.system(),
    machine: str = platform.machine(),
    libc: tuple[str, str] = platform.libc_ver(),
) -> None:
    """Raises PrerequisiteError unless the wheel that carries Triton runs here."""
    oldest, newest = PYTHON_VERSIONS
    if not oldest <= python <= newest:
        raise PrerequisiteError(
            f"Python {python[0]}.{python[1]} is too {'old' if python < oldest else 'new'}: 3.11 and 3.12 are"
            " supported. Install one of them and run `make PYTHON=python3.11 ...`"
        )
    if (system, machine) != ("Linux", "x86_64"):
        raise PrerequisiteError(
            f"this is {system} on {machine}: NVIDIA's Triton wheel is built for Linux on x86_64. Use a container there"
        )
    name, version = libc
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC_VERSION:
        raise PrerequisiteError(
            f"the C library is {name or 'not glibc'} {version}: Triton's wheel needs glibc 2.35 or newer"
            " (Debian 12, Ubuntu 22.04, RHEL 10 or later)"
        )


def find_libpython(folders: Sequence[Path] | None = None) -> Path:
    """The shared library of the running Python, which Triton's stub embeds. Raises PrerequisiteError without one."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"libpython{version}.so.1.0"
    if folders is None:
        configured = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
        folders = (
            configured,
            configured / (sysconfig.get_config_var("MULTIARCH") or ""),
            Path(sys.base_prefix) / "lib",
        )
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise PrerequisiteError(
        f"{name} is not in {', '.join(str(folder) for folder in dict.fromkeys(folders))}: Triton runs stages in a"
        f" Python that is a shared library. Debian and Ubuntu: `apt install libpython{version}`; Fedora: `dnf install"
        f" python{version}-libs`; pyenv: `env PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {version}`"
    )


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Raises PrerequisiteError for a port that is taken or not ours to bind; `ports` maps variables' names to ports."""
    seen: dict[int, str] = {}
    for variable, port in ports.items():
        if port in seen:
            raise PrerequisiteError(f"{seen[port]} and {variable} are both {port}: each needs a port of its own")
        seen[port] = variable
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as error:
                raise PrerequisiteError(
                    f"port {port} of {host} cannot be used ({error}): stop what listens there"
                    f" (`ss -ltnp 'sport = :{port}'` names it) or choose another with {variable}=PORT"
                ) from error


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Raises PrerequisiteError unless `needed_bytes` are free where `folder` is or will be."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise PrerequisiteError(
            f"{free_bytes / _GIBIBYTE:.1f} GiB are free below {existing} and {needed_bytes / _GIBIBYTE:.1f} GiB are"
            " needed there: free some space"
        )


def check_shared_memory(folder: Path = SHARED_MEMORY, needed_bytes: int = SHARED_MEMORY_BYTES) -> None:
    """Raises PrerequisiteError unless the tensors that stages exchange fit into shared memory."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise PrerequisiteError(
            f"{free_bytes / 2**20:.0f} MiB are free in {folder} and {needed_bytes / 2**20:.0f} MiB are needed, for the"
            " tensors that stages exchange: start a container with `--shm-size=1g`, or remove stale files there"
        )


def main() -> int:
    """Checks what must hold before anything is installed."""
    try:
        check_platform()
        find_libpython()
        check_disk(Path(), ENVIRONMENT_BYTES)
    except PrerequisiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
