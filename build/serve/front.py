"""A program in front of a deployment, like `qwen3-vl-front`: each ends when the other does."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence

from build.serve.deployment import Deployment
from build.serve.supervisor.supervisor import ServerError

# After that it is killed; it has the time to end what it has begun.
_GRACE_SECONDS = 10.0


def run_front(command: Sequence[str], deployment: Deployment) -> None:
    """Runs `command`, which finds the server in QWEN3_VL_URL and its access in QWEN3_VL_ACCESS, until it or the
    deployment ends. It asks Triton itself: it is a gate for its own clients.

    Raises:
        ServerError: what ended the deployment, or the program failed.
        OSError: the program cannot be started.
    """
    errors: list[ServerError] = []
    found = {"QWEN3_VL_URL": deployment.triton.grpc_target, "QWEN3_VL_ACCESS": deployment.access.access}
    front = subprocess.Popen(command, env={**os.environ, **found})

    def watch() -> None:
        try:
            deployment.wait()
        except ServerError as error:
            errors.append(error)
        front.terminate()

    threading.Thread(target=watch, daemon=True).start()
    try:
        status = front.wait()
    finally:
        front.terminate()
        try:
            front.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            front.kill()
            front.wait()
    if errors:
        raise errors[0]
    if status:
        raise ServerError(f"{command[0]} ended with status {status}")
