"""Starts the gate as a process of its own, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from build.serve.gate.settings import GateSettings

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_READY = b"ready\n"


class GateError(RuntimeError):
    """The gate did not start. The message says why, in its own words."""


class Gate:
    """Runs while the `with` block does, and ends when its parent does: its standard input stays open so long."""

    def __init__(self, settings: GateSettings, log: Path) -> None:
        """The gate writes errors to the end of the file `log`."""
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Gate:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Returns when it listens; may be called again when it has ended. Raises GateError."""
        begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as output:
            process = self._process = subprocess.Popen(
                # -P: no module is taken from the folder that it is started in.
                [sys.executable, "-P", "-m", "build.serve.gate"],
                # Clients cause what gRPC logs: a line each would fill the disk.
                env={**os.environ, "PYTHONPATH": str(_ROOT), "GRPC_VERBOSITY": "NONE"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                bufsize=0,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{self._settings.to_json()}\n".encode())
            # Nobody waits for a gate that does not listen.
            os.set_blocking(process.stdin.fileno(), False)
        if not select.select([process.stdout], [], [], _START_SECONDS)[0] or process.stdout.readline() != _READY:
            self.stop(grace_seconds=0)
            said = self._log.read_bytes()[begin:].decode(errors="replace").strip()
            raise GateError(f"the gate did not start: {said or f'nothing was heard for {_START_SECONDS:g} s'}")

    def stage_died(self, stage: str, retry_seconds: int) -> None:
        """Ends what clients wait for and will not get, with a reason. A gate that has ended has nobody who waits."""
        stdin = self._running().stdin
        assert stdin is not None
        # ValueError: it is closed.
        with contextlib.suppress(OSError, ValueError):
            stdin.write(f"{json.dumps({'stage': stage, 'retry_seconds': retry_seconds})}\n".encode())

    def exit_status(self) -> int | None:
        """None while it runs; else its exit status, or a signal's number below zero."""
        return self._running().poll()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Its exit status when it has ended, None when it runs after so long."""
        try:
            return self._running().wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace_seconds: float | None = None) -> None:
        """Ends it; requests may go on for the settings' time, or for `grace_seconds`; 0: at once."""
        process = self._running()
        if grace_seconds is None:
            grace_seconds = self._settings.drain_seconds + 5.0
        if grace_seconds:
            process.terminate()
            self.wait(grace_seconds)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise GateError("the gate was not started")
        return self._process
