"""Start the server, ask one question about the sample video, end the server: the command behind `make demo`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from build.serve.deployment import end_on_signals, make_private
from build.serve.server.prerequisites import PrerequisiteError
from build.serve.server.triton import Endpoints, free_ports
from build.serve.serving import CACHE, ROOT, serve_checkpoint
from build.serve.supervisor.supervisor import ServerError

HOST = "127.0.0.1"
# A random checkpoint never finds an end by itself.
_MAX_TOKENS = 128


def main() -> int:
    """The exit status is the client's."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--model", default="", help="a checkpoint's folder or hub name; empty: the demo's")
    parser.add_argument("--video", type=Path, default=ROOT / "client" / "examples" / "scenes.mp4")
    parser.add_argument("--question", default="When does the word SUN appear?")
    arguments = parser.parse_args()
    end_on_signals()
    make_private()
    endpoints = Endpoints(HOST, *free_ports(HOST, 4))
    ask = ["ask", "--url", endpoints.grpc_target, "--max-tokens", str(_MAX_TOKENS)]
    try:
        with serve_checkpoint(arguments.model, CACHE / "demo-repository", endpoints, {}, CACHE / "triton-demo.log"):
            print(f"\n{arguments.video.name}: {arguments.question}\n", flush=True)
            return subprocess.run(
                [sys.executable, "-m", "qwen3_vl_client", *ask, arguments.video, arguments.question]
            ).returncode
    except KeyboardInterrupt:
        return 130
    except (PrerequisiteError, ServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
