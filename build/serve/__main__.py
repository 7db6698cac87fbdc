"""Serve a model with Triton, in the foreground, until Ctrl-C: the command behind `make serve`.

python -m build.serve --model CHECKPOINT             assembles a repository of the checkpoint, and serves it
python -m build.serve OUTPUT/repository              serves what `make repository` built for this machine
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from build.serve.deployment import end_on_signals, make_private
from build.serve.doors import add_doors, read_endpoints, read_gate, warnings
from build.serve.front import run_front
from build.serve.server.prerequisites import PrerequisiteError
from build.serve.serving import CACHE, report, serve_built, serve_checkpoint
from build.serve.supervisor.supervisor import ServerError


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "built", type=Path, nargs="?", metavar="REPOSITORY", help="a folder with manifest.json, served as it was built"
    )
    parser.add_argument("--model", default="", help="a checkpoint's folder or hub name; empty: the demo's")
    parser.add_argument(
        "--repository", type=Path, default=CACHE / "repository", metavar="FOLDER", help="where it is assembled"
    )
    add_doors(parser)
    parser.add_argument("--media-root", default="", help="the folder that video_uri is looked up in; empty: none")
    parser.add_argument("--log", type=Path, default=CACHE / "triton-serve.log", help="the file that Triton writes to")
    parser.add_argument("--set", nargs="*", default=[], metavar="MODEL.PARAMETER=VALUE", help="further settings")
    parser.add_argument(
        "--front", nargs=argparse.REMAINDER, default=[], metavar="PROGRAM", help="a program to run before the server"
    )
    arguments = parser.parse_args()
    if arguments.built and (arguments.model or arguments.media_root or arguments.set):
        parser.error(
            f"{arguments.built} is served as it was built: --model, --media-root and --set are for a repository that"
            " is assembled (where: --repository)"
        )
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
        if arguments.built:
            serving = serve_built(arguments.built, endpoints, arguments.log, gate)
        else:
            serving = serve_checkpoint(arguments.model, arguments.repository, endpoints, settings, arguments.log, gate)
        with serving as deployment:
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
