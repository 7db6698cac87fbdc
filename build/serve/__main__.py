"""Serve a checkpoint with Triton, in the foreground, until Ctrl-C: the command behind `make serve`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from build.serve.deployment import Deployment, credits_settings, end_on_signals, make_private
from build.serve.doors import add_doors, read_endpoints, read_gate, warnings
from build.serve.front import run_front
from build.serve.gate_keeper import GateOptions
from build.serve.server import prerequisites, triton
from build.serve.server.prerequisites import PrerequisiteError
from build.serve.server.triton import Endpoints
from build.serve.supervisor.supervisor import ServerError

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
DEMO_CHECKPOINT = ROOT / "build" / "demo_checkpoint" / "checkpoint"

# What an assembled repository takes besides the checkpoint's own weights.
_REPOSITORY_BYTES = 2**30


def report(line: str) -> None:
    """Prints a line for people, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _demo_checkpoint() -> Path:
    """The trained checkpoint of the demo, or a random one where it was not made."""
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


@contextmanager
def serve(
    model: str,
    repository: Path,
    endpoints: Endpoints,
    settings: Mapping[str, str],
    log: Path,
    gate: GateOptions | None = None,
) -> Iterator[Deployment]:
    """Checks this machine, assembles `repository` from `model` and serves it while the `with` block runs.

    `model` is a checkpoint's folder or hub name, or empty for the demo's. Clients come through `gate`, if there is to
    be one. Raises PrerequisiteError or ServerError with
    a message that says what to do.
    """
    prerequisites.check_platform()
    prerequisites.check_shared_memory()
    ports = {
        "HTTP_PORT": endpoints.http,
        "GRPC_PORT": endpoints.grpc,
        "METRICS_PORT": endpoints.metrics,
        "HEALTH_PORT": endpoints.health,
    }
    prerequisites.check_ports(endpoints.host, ports)
    prerequisites.check_disk(repository, _REPOSITORY_BYTES)
    CACHE.mkdir(exist_ok=True)
    installation = triton.find(CACHE / "triton")
    # They bring PyTorch along: what can fail early has been checked.
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
        report(f"starting Triton; its log is {log}")
        with Deployment(installation, repository, endpoints, log, report, gate=gate) as deployment:
            yield deployment


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("--model", default="", help="a checkpoint's folder or hub name; empty: the demo's")
    parser.add_argument("--repository", type=Path, default=CACHE / "repository", help="where it is assembled")
    add_doors(parser)
    parser.add_argument("--media-root", default="", help="the folder that video_uri is looked up in; empty: none")
    parser.add_argument("--log", type=Path, default=CACHE / "triton-serve.log", help="the file that Triton writes to")
    parser.add_argument("--set", nargs="*", default=[], metavar="MODEL.PARAMETER=VALUE", help="further settings")
    parser.add_argument(
        "--front", nargs=argparse.REMAINDER, default=[], metavar="PROGRAM", help="a program to run before the server"
    )
    arguments = parser.parse_args()
    for setting in arguments.set:
        name, equals, _ = setting.partition("=")
        if not equals or name.count(".") != 1:
            parser.error(f"SET has {setting!r}; model.parameter=value is accepted, e.g. decoder.max_batch=8")
    return arguments


def main() -> int:
    arguments = _parse()
    end_on_signals()
    make_private()
    settings = dict(setting.split("=", 1) for setting in arguments.set)
    if arguments.media_root:
        settings["video_preprocess.media_root"] = str(Path(arguments.media_root).resolve())
    endpoints = read_endpoints(arguments)
    try:
        gate = read_gate(arguments)
        with serve(arguments.model, arguments.repository, endpoints, settings, arguments.log, gate) as deployment:
            report("ready: a model has answered")
            for line in warnings(endpoints, gate):
                report(line)
            print(
                f"  HTTP       {endpoints.url(endpoints.http)}\n"
                f"  gRPC       {endpoints.grpc_target}\n"
                f"  metrics    {endpoints.url(endpoints.metrics)}/metrics\n"
                f"  readiness  {endpoints.url(endpoints.health)}/ready\n"
                f'  ask it     .venv/bin/qwen3-vl ask --url {endpoints.grpc_target} VIDEO "What happens, and when?"\n'
                "  end it     Ctrl-C",
                flush=True,
            )
            if arguments.front:
                run_front(arguments.front, deployment)
            else:
                deployment.wait()
    except KeyboardInterrupt:
        report("ended")
    except (PrerequisiteError, ServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
