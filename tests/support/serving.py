"""A real Triton under its supervisor, for tests: `with Server(checkpoint) as server: ...`."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from build.serve.deployment import Deployment, credits_settings
from build.serve.gate_keeper import GateOptions
from build.serve.server import triton
from build.serve.supervisor.supervisor import SERVER, Limits

CACHE = Path(__file__).parents[2] / ".cache" / "triton"

Assemble = Callable[[Path, Path, Mapping[str, str]], object]


def assemble_checkpoint(checkpoint: Path, destination: Path, settings: Mapping[str, str]) -> None:
    """`build/repository.py`'s `assemble`, imported when it is used: it brings PyTorch along."""
    from build.assemble.repository import assemble

    assemble(checkpoint, destination, settings)


class Server:
    """Serves a checkpoint on free ports of 127.0.0.1 while the `with` block runs, and leaves nothing behind.

    Entering returns when a model has answered. Use it from a module- or session-scoped fixture: a start takes seconds.

        with Server(checkpoint, {"decoder.max_batch": "8", "video_preprocess.media_root": str(folder)}) as server:
            client = tritonclient.grpc.InferenceServerClient(server.grpc_url)

    Attributes:
        grpc_url: `127.0.0.1:PORT`, as tritonclient wants it.
        http_url, metrics_url, health_url: `http://127.0.0.1:PORT`; metrics are at `/metrics`, readiness at `/ready`.
        repository: the assembled model repository.
        credits_directory: where the sessions' FIFOs are.
        reports: what the supervisor noticed and repaired, a line each.
        access: the secrets that open what is restricted.
        log_path: the file that the server and its stages write to.
        deployment: what runs.
    """

    def __init__(
        self,
        checkpoint: Path,
        settings: Mapping[str, str] | None = None,
        *,
        assemble: Assemble = assemble_checkpoint,
        limits: Limits | None = None,
        gate: GateOptions | None = None,
    ) -> None:
        """`settings` maps `model.parameter` to its value, as `build/repository.py` takes them. Without a `gate`, the
        addresses are Triton's own."""
        self._checkpoint = checkpoint
        self._settings = settings or {}
        self._assemble = assemble
        self._limits = limits
        self._gate = gate
        self.reports: list[str] = []

    def __enter__(self) -> Server:
        self._folder = Path(tempfile.mkdtemp(prefix="qwen3-vl-test-"))
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deployment.__exit__(kind, error, trace)
        shutil.rmtree(self._folder)

    def _start(self) -> None:
        self.repository = self._folder / "repository"
        self.credits_directory = self._folder / "credits"
        self.credits_directory.mkdir()
        cache = {"video_preprocess.cache_directory": str(self._folder / "cache")}
        settings = {**cache, **self._settings, **credits_settings(self.credits_directory)}
        self._assemble(self._checkpoint, self.repository, settings)
        self.log_path = self._folder / "triton.log"
        ports = triton.Endpoints("127.0.0.1", *triton.free_ports("127.0.0.1", 4))
        self.deployment = Deployment(
            triton.find(CACHE),
            self.repository,
            ports,
            self.log_path,
            self.reports.append,
            self._limits,
            gate=self._gate,
        )
        self.access = self.deployment.access
        self.grpc_url = ports.grpc_target
        self.http_url = ports.url(ports.http)
        self.metrics_url = ports.url(ports.metrics)
        self.health_url = ports.url(ports.health)
        self.deployment.__enter__()

    def pids(self) -> dict[str, int]:
        """The process ids now: `triton` for the server, and each stage's own (`decoder`, ...)."""
        return self.deployment.supervisor.pids()

    def heals(self) -> dict[str, int]:
        """How often each stage was reloaded, and the whole server (`triton`) restarted, since the start."""
        return self.deployment.supervisor.heals()

    def wait_ready(self, timeout_seconds: float = 60.0) -> None:
        """Returns when every stage runs and a model has answered since the last heal; raises TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while not self._stays_ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {timeout_seconds} s: {self.reports}\n{self.log()}")
            time.sleep(0.05)

    def _stays_ready(self) -> bool:
        """A process that was killed a moment ago may not have gone yet, and the supervisor may not have looked."""
        if not self._is_ready():
            return False
        time.sleep(2 * Limits().watch_seconds)
        return self._is_ready()

    def _is_ready(self) -> bool:
        supervisor = self.deployment.supervisor
        return supervisor.pids().keys() >= {SERVER, *triton.STAGES} and supervisor.wait_ready(0)

    def log(self) -> str:
        """The text that the server and its stages have written so far."""
        return self.log_path.read_text(errors="replace")
