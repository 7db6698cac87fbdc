"""A real Triton under its supervisor, for tests: `with Server(checkpoint) as server: ...`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType


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
    """

    grpc_url: str
    http_url: str
    metrics_url: str
    health_url: str
    repository: Path
    credits_directory: Path

    def __init__(self, checkpoint: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` maps `model.parameter` to its value, as `build/repository.py` takes them."""
        raise NotImplementedError

    def __enter__(self) -> Server:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def pids(self) -> dict[str, int]:
        """The process ids now: `triton` for the server, and each stage's own (`decoder`, ...)."""
        raise NotImplementedError

    def heals(self) -> dict[str, int]:
        """How often each stage was reloaded, and the whole server (`triton`) restarted, since the start."""
        raise NotImplementedError

    def wait_ready(self, timeout_seconds: float = 60.0) -> None:
        """Returns when every stage runs and a model has answered since the last heal; raises TimeoutError."""
        raise NotImplementedError

    def log(self) -> str:
        """What the server and its stages have written so far."""
        raise NotImplementedError
