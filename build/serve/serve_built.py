"""Serve a built repository on the machine that it was built for, in the foreground, until Ctrl-C.

    python -m build.serve.serve_built DIR/repository --host 0.0.0.0

What the manifest says is checked first: a plan for another card or version is refused here and not by a request.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from build.gpu.manifest import ManifestError, check_manifest, this_machine
from build.serve.deployment import Deployment, end_on_signals, make_private
from build.serve.doors import add_doors, read_endpoints, read_gate, warnings
from build.serve.server import triton
from build.serve.server.prerequisites import PrerequisiteError
from build.serve.supervisor.supervisor import ServerError

CACHE = Path(__file__).parents[2] / ".cache" / "triton"


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.serve.serve_built", description="Serve a built repository.")
    parser.add_argument("repository", type=Path, help="the folder with manifest.json")
    add_doors(parser)
    parser.add_argument("--log", type=Path, default=Path("triton.log"), help="the file that Triton writes to")
    arguments = parser.parse_args()
    end_on_signals()
    make_private()
    endpoints = read_endpoints(arguments)
    try:
        gate = read_gate(arguments)
        options = check_manifest(arguments.repository, this_machine())
        installation = triton.find(CACHE)
        with Deployment(
            installation, arguments.repository, endpoints, arguments.log, _report, options=options, gate=gate
        ) as deployment:
            _report(f"ready: gRPC {endpoints.grpc_target}, HTTP {endpoints.url(endpoints.http)}")
            for line in warnings(endpoints, gate):
                _report(line)
            deployment.wait()
    except KeyboardInterrupt:
        _report("ended")
    except (ManifestError, PrerequisiteError, ServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
