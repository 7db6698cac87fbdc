"""A repository being served: Triton under its supervisor, with a readiness endpoint, until a `with` block ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from server.access import Access
from server.api import Api
from server.concealed import ConcealmentError
from server.health import health_endpoint
from server.process import TritonProcess
from server.supervisor import Limits, ServerError, Supervisor
from server.triton import Endpoints, Installation, command

_LOG_TAIL_LINES = 30


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
    ) -> None:
        """Serves the assembled `repository`; the server writes to the file `log`, the supervisor to `report`.

        options: of the server, beside those that every repository needs.
        """
        self.access = Access.draw(gated=False)
        self._command = [*command(installation, repository, endpoints), *options]
        self._environment = installation.environment()
        self._report = report
        api = Api(endpoints.url(endpoints.http), self.access.headers())
        self.supervisor = Supervisor(self._launch, api, report, limits)
        self._endpoints = endpoints
        self._log = log
        self._error: Exception | None = None
        self._resources = ExitStack()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Deployment:
        try:
            endpoint = health_endpoint(self._endpoints.host, self._endpoints.health, self.supervisor.status)
            self._resources.enter_context(endpoint)
            self._thread.start()
            while not self.supervisor.wait_ready(timeout_seconds=0.1):
                if not self._thread.is_alive():
                    self.wait()
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

    def _launch(self) -> TritonProcess:
        hidden = self.access.options()
        try:
            return TritonProcess([*self._command, *hidden], self._environment, self._log, hidden)
        except ConcealmentError as error:
            self._report(f"warning: {error}: the other users of this machine can read Triton's secrets")
            return TritonProcess([*self._command, *hidden.values()], self._environment, self._log)

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


def end_on_signals() -> None:
    """Lets SIGTERM and a closed terminal end a command as Ctrl-C does, and Ctrl-C where a shell has it ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
