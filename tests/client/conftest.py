"""A real Triton with scripted models (`repository/`): the question says what they answer."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from qwen3_vl_client import Client, Timeouts
from server import triton
from tritonclient.grpc import InferenceServerClient

ROOT = Path(__file__).parents[2]
REPOSITORY = Path(__file__).parent / "repository"
HOST = "127.0.0.1"


class ScriptedServer:
    """The server's process group, its address, and which requests it was told to stop."""

    def __init__(self, folder: Path) -> None:
        self._stopped = folder / "stopped"
        self._stopped.mkdir()
        self._log = folder / "log"
        installation = triton.find(ROOT / ".cache" / "triton")
        grpc_port, http_port = triton.free_ports(HOST, 2)
        self.url = f"{HOST}:{grpc_port}"
        self.http_url = f"http://{HOST}:{http_port}"
        command = [
            installation.executable,
            f"--model-repository={REPOSITORY}",
            f"--backend-directory={installation.backends}",
            f"--grpc-address={HOST}",
            f"--http-address={HOST}",
            f"--grpc-port={grpc_port}",
            f"--http-port={http_port}",
            "--allow-metrics=false",
            "--exit-timeout-secs=1",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**installation.environment(), "STOPPED": str(self._stopped)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_ready()

    def _wait_ready(self) -> None:
        with InferenceServerClient(self.url) as probe:
            for _ in range(300):
                try:
                    if probe.is_model_ready("qwen3_vl") and probe.is_model_ready("decoder"):
                        return
                except Exception:
                    assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.1)
        raise TimeoutError(self._log.read_text())

    def was_stopped(self, request_id: str | None, wait_seconds: float = 3.0) -> bool:
        """Whether the server was told to stop the request, now or within the time."""
        deadline = time.monotonic() + wait_seconds
        while not (self._stopped / str(request_id)).exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """Ends the server and its models at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    running = ScriptedServer(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """A server that a test may kill."""
    running = ScriptedServer(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.url, timeouts=Timeouts(silence=20, total=30)) as client:
        yield client


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A file to upload; the scripted server does not look into it."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\x00\x01\x02\x03\x04")
    return path
