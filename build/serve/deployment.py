"""A repository being served: Triton under its supervisor, with a readiness endpoint, until a `with` block ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from build.serve.gate_keeper import GateKeeper, GateOptions
from build.serve.gate_process import GateError
from build.serve.server.access import Access
from build.serve.server.api import Api
from build.serve.server.concealed import ConcealmentError
from build.serve.server.process import TritonProcess
from build.serve.server.triton import Endpoints, Installation, command, free_ports
from build.serve.supervisor.health import health_endpoint
from build.serve.supervisor.status import Status
from build.serve.supervisor.supervisor import Limits, ServerError, Supervisor

_LOG_TAIL_LINES = 30
# Where Triton listens behind a gate.
_PRIVATE = "127.0.0.1"


def credits_settings(folder: Path) -> dict[str, str]:
    """The settings by which stages 1 and 3 meet in `folder`: sessions' FIFOs are there, and end with it."""
    return {f"{stage}.credits_directory": str(folder) for stage in ("video_preprocess", "decoder")}


class Deployment:
    """Entering returns when a model has answered; leaving ends everything that was started.

    Raises ServerError with the end of the log when the server does not come up. A KeyboardInterrupt while it is being
    stopped kills what is left at once.
    """

    def __init__(
        self,
        installation: Installation,
        repository: Path,
        endpoints: Endpoints,
        log: Path,
        report: Callable[[str], None],
        limits: Limits | None = None,
        options: Sequence[str] = (),
        gate: GateOptions | None = None,
    ) -> None:
        """Serves the assembled `repository`; the server writes to the file `log`, the supervisor to `report`.

        options: of the server, beside those that every repository needs.
        gate: clients come through it; without one, Triton's own ports are theirs, but for control. Raises ValueError
            for a bound that is none.
        """
        self.access = Access.draw(gated=gate is not None)
        self.triton = endpoints
        if gate is not None:
            http, grpc, metrics = free_ports(_PRIVATE, 3)
            self.triton = Endpoints(_PRIVATE, http, grpc, metrics, endpoints.health)
        self._names = () if gate is None else gate.public_hosts
        self.gate: GateKeeper | None = None
        if gate is not None:
            settings = gate.settings(endpoints, self.triton, self.access)
            self.gate = GateKeeper(settings, log.with_name("gate.log"), report)
        self._command = [*command(installation, repository, self.triton), *options]
        self._environment = installation.environment()
        self._report = report
        api = Api(self.triton.url(self.triton.http), self.access.headers())
        self.supervisor = Supervisor(self._launch, api, report, limits, self._tell_gate)
        self._endpoints = endpoints
        self._log = log
        self._error: Exception | None = None
        self._resources = ExitStack()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Deployment:
        try:
            if self.gate is not None:
                self._resources.enter_context(self.gate)
            endpoint = health_endpoint(self._endpoints.host, self._endpoints.health, self.status, self._names)
            self._resources.enter_context(endpoint)
            self._thread.start()
            while not self.supervisor.wait_ready(timeout_seconds=0.1):
                if not self._thread.is_alive():
                    self.wait()
        except GateError as error:
            self._stop()
            raise ServerError(str(error)) from error
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def wait(self) -> None:
        """Returns when the server has ended; raises what ended it."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def status(self) -> Status:
        """The server as its clients see it."""
        seen = self.supervisor.status()
        return seen if self.gate is None else self.gate.seen(seen)

    def _launch(self) -> TritonProcess:
        hidden = self.access.options()
        try:
            return TritonProcess([*self._command, *hidden], self._environment, self._log, hidden)
        except ConcealmentError as error:
            self._report(f"warning: {error}: the other users of this machine can read Triton's secrets")
            return TritonProcess([*self._command, *hidden.values()], self._environment, self._log)

    def _tell_gate(self, stage: str, retry_seconds: int) -> None:
        if self.gate is not None:
            self.gate.stage_died(stage, retry_seconds)

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except ServerError as error:
            tail = self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            self._error = ServerError("\n".join([*tail, f"{error}; the end of {self._log} is above"]))
        except Exception as error:
            self._error = error

    def _stop(self) -> None:
        try:
            self.supervisor.stop()
        except KeyboardInterrupt:
            self.supervisor.stop(grace_seconds=0)
        finally:
            self._resources.close()


def make_private() -> None:
    """Keeps everything that this process and its children write for their own user only."""
    os.umask(0o077)


def end_on_signals() -> None:
    """Lets SIGTERM and a closed terminal end a command as Ctrl-C does, and Ctrl-C where a shell has it ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
