"""Serves a repository while a `with` block runs: one that is assembled first, or one that was built before."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from build.gpu.manifest import ManifestError, check_manifest, this_machine
from build.serve.deployment import Deployment, credits_settings
from build.serve.gate_keeper import GateOptions
from build.serve.server import prerequisites, triton
from build.serve.server.prerequisites import PrerequisiteError
from build.serve.server.triton import Endpoints

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
DEMO_CHECKPOINT = ROOT / "build" / "demo_checkpoint" / "checkpoint"

# An assembled repository takes this much besides the checkpoint's own weights.
_REPOSITORY_BYTES = 2**30


def report(line: str) -> None:
    """Prints a line for people, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


@contextmanager
def serve_checkpoint(
    model: str,
    repository: Path,
    endpoints: Endpoints,
    settings: Mapping[str, str],
    log: Path,
    gate: GateOptions | None = None,
) -> Iterator[Deployment]:
    """Checks this machine, assembles `repository` from `model` and serves it.

    `model` is a checkpoint's folder or hub name, or empty for the demo's. Clients come through `gate`, if there is to
    be one. Raises PrerequisiteError or ServerError with a message that says what to do.
    """
    prerequisites.check_platform()
    _check_machine(endpoints)
    prerequisites.check_disk(repository, _REPOSITORY_BYTES)
    CACHE.mkdir(exist_ok=True)
    triton.find(CACHE / "triton")
    # They bring PyTorch along: first comes what can fail early.
    from build.assemble.published_checkpoint import find_checkpoint
    from build.assemble.repository import assemble

    with tempfile.TemporaryDirectory(prefix="qwen3-vl-") as credits:
        try:
            checkpoint = find_checkpoint(model) if model else _demo_checkpoint()
            report(f"assembling {repository} from {checkpoint}")
            assemble(checkpoint, repository, {**settings, **credits_settings(Path(credits))})
        except ValueError as error:
            raise PrerequisiteError(str(error)) from error
        log.unlink(missing_ok=True)
        with _deployment(repository, endpoints, log, gate) as deployment:
            yield deployment


@contextmanager
def serve_built(
    repository: Path, endpoints: Endpoints, log: Path, gate: GateOptions | None = None
) -> Iterator[Deployment]:
    """Serves what `make repository` built. A repository for another card or version is refused before it is loaded.

    Raises PrerequisiteError or ServerError with a message that says what to do.
    """
    try:
        options = check_manifest(repository, this_machine())
    except ManifestError as error:
        raise PrerequisiteError(str(error)) from error
    _check_machine(endpoints)
    with _deployment(repository, endpoints, log, gate, options) as deployment:
        yield deployment


def _check_machine(endpoints: Endpoints) -> None:
    ports = {
        "HTTP_PORT": endpoints.http,
        "GRPC_PORT": endpoints.grpc,
        "METRICS_PORT": endpoints.metrics,
        "HEALTH_PORT": endpoints.health,
    }
    prerequisites.check_shared_memory()
    prerequisites.check_ports(endpoints.host, ports)


def _deployment(
    repository: Path, endpoints: Endpoints, log: Path, gate: GateOptions | None, options: Sequence[str] = ()
) -> Deployment:
    installation = triton.find(CACHE / "triton")
    log.parent.mkdir(parents=True, exist_ok=True)
    report(f"starting Triton; its log is {log}")
    return Deployment(installation, repository, endpoints, log, report, options=options, gate=gate)


def _demo_checkpoint() -> Path:
    """The trained checkpoint of the demo, or a random one where there is none."""
    if (DEMO_CHECKPOINT / "config.json").is_file():
        return DEMO_CHECKPOINT
    random = CACHE / "random-checkpoint"
    if not (random / "config.json").is_file():
        from build.assemble.checkpoint_factory import make_checkpoint

        report("there is no trained checkpoint: making a small random one, whose answers mean nothing")
        with tempfile.TemporaryDirectory(dir=CACHE) as partial:
            make_checkpoint(Path(partial) / random.name)
            (Path(partial) / random.name).rename(random)
    return random
