"""Keeps the gate in front of Triton open: a gate that has ended is started again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from build.serve.gate.settings import GateSettings
from build.serve.gate_process import Gate, GateError
from build.serve.server.access import Access
from build.serve.server.triton import Endpoints
from build.serve.supervisor.backoff import Backoff
from build.serve.supervisor.status import Status
from build.serve.supervisor.stopped import Stopped

_WATCH_SECONDS = 0.25
_MAX_BACKOFF_SECONDS = 60.0


@dataclass(frozen=True)
class GateOptions:
    """The gate that an operator wants."""

    public_hosts: tuple[str, ...] = ()
    """Names that clients know this machine by, beside its addresses."""
    bounds: Mapping[str, Any] = field(default_factory=dict)
    """Fields of GateSettings, by name."""

    def settings(self, public: Endpoints, triton: Endpoints, access: Access) -> GateSettings:
        """The settings of a gate at `public` in front of `triton`. Raises ValueError for a bound that is none."""
        return GateSettings(
            host=public.host,
            grpc_port=public.grpc,
            http_port=public.http,
            metrics_port=public.metrics,
            triton_grpc=triton.grpc_target,
            triton_http=triton.url(triton.http),
            triton_metrics=triton.url(triton.metrics),
            access=access.access,
            public_hosts=self.public_hosts,
            **self.bounds,
        )


class GateKeeper:
    """Entering returns when the gate listens; raises GateError when it does not start."""

    def __init__(self, settings: GateSettings, log: Path, report: Callable[[str], None]) -> None:
        """The gate writes to the file `log`; `report` takes a line for people whenever it was started again."""
        self._gate = Gate(settings, log)
        self._report = report
        self._backoff = Backoff(_MAX_BACKOFF_SECONDS)
        self._stopped = Stopped()
        self._listens = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="gate", daemon=True)

    def __enter__(self) -> GateKeeper:
        self._start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._gate.stop()

    @property
    def pid(self) -> int:
        """The gate's process id."""
        return self._gate.pid

    def stage_died(self, stage: str, retry_seconds: int) -> None:
        """Ends what clients asked and this stage held; they are told to come back in so many seconds."""
        self._gate.stage_died(stage, retry_seconds)

    def seen(self, status: Status) -> Status:
        """The server's status as clients see it, who come through the gate."""
        listens = self._listens.is_set() and self._gate.exit_status() is None
        return status if listens else replace(status, ready=False)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            status = self._gate.wait(_WATCH_SECONDS)
            if self._stopping.is_set():
                return
            if status is None:
                self._end_if_stopped()
                continue
            self._listens.clear()
            now = time.monotonic()
            delay_seconds = max(0.0, self._backoff.next_due(now) - now)
            self._report(f"the gate ended with status {status}; starting it again in {delay_seconds:.0f} s")
            if self._stopping.wait(delay_seconds):
                return
            try:
                self._start()
            except GateError as error:
                self._report(str(error))

    def _end_if_stopped(self) -> None:
        # Without file handles nothing can be seen now. It is looked again soon.
        with contextlib.suppress(OSError):
            if self._stopped.too_long(self._gate.pid, time.monotonic()):
                self._report("the gate is stopped (SIGSTOP); ending its process")
                os.kill(self._gate.pid, signal.SIGKILL)

    def _start(self) -> None:
        self._gate.start()
        self._listens.set()
