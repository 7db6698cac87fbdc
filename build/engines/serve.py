"""Serve a built repository on the machine that it was built for, in the foreground, until Ctrl-C.

    PYTHONPATH=build python -m engines.serve DIR/repository --host 0.0.0.0

What the manifest says is checked first: a plan for another card or version is refused here and not by a request.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from server import triton
from server.deployment import Deployment, end_on_signals
from server.prerequisites import PrerequisiteError
from server.supervisor import ServerError

from engines.manifest import ManifestError, check_manifest, this_machine

CACHE = Path(__file__).parents[2] / ".cache" / "triton"


def main() -> int:
    parser = argparse.ArgumentParser(prog="engines.serve", description="Serve a repository that `engines` has built.")
    parser.add_argument("repository", type=Path, help="the folder with manifest.json")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002), ("health", 8003)):
        parser.add_argument(f"--{name}-port", type=int, default=port)
    parser.add_argument("--log", type=Path, default=Path("triton.log"), help="the file that Triton writes to")
    arguments = parser.parse_args()
    end_on_signals()
    endpoints = triton.Endpoints(
        arguments.host, arguments.http_port, arguments.grpc_port, arguments.metrics_port, arguments.health_port
    )
    try:
        options = check_manifest(arguments.repository, this_machine())
        installation = triton.find(CACHE)
        with Deployment(
            installation, arguments.repository, endpoints, arguments.log, _report, options=options
        ) as deployment:
            _report(f"ready: gRPC {endpoints.grpc_target}, HTTP {endpoints.url(endpoints.http)}")
            deployment.wait()
    except KeyboardInterrupt:
        _report("ended")
    except (ManifestError, PrerequisiteError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
