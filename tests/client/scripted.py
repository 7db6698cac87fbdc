"""A real Triton with scripted models (`repository/`), and questions that say what they answer."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from build.serve.server import triton

ROOT = Path(__file__).parents[2]
REPOSITORY = Path(__file__).parent / "repository"
HOST = "127.0.0.1"


def script(*steps: list[object]) -> str:
    return json.dumps(steps)


HELLO = script(
    ["progress", "sampling", 0, 0],
    ["progress", "prefill", 120, 64],
    ["text", "It "],
    ["text", "rains at 2.5 s: 雨"],
    ["finish", "stop"],
)
FOREVER = script(["progress", "prefill", 120, 64], ["forever"], ["finish", "cancelled"])
ECHO = script(["echo"], ["finish", "stop"])
SILENCE = script(["text", "It "], ["sleep", 30])
CRASH = script(["text", "It "], ["crash"])


def error(message: str) -> str:
    return script(["text", "It "], ["error", message])


class ScriptedServer:
    """The server's process group, its address, and which requests it was told to stop."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._stopped = folder / "stopped"
        self._stopped.mkdir()
        (self._stopped / "salts").touch()
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
            *flags,
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
        for _ in range(300):
            try:
                for model in ("qwen3_vl", "decoder"):
                    urllib.request.urlopen(f"{self.http_url}/v2/models/{model}/ready").close()
                return
            except OSError:
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

    def salts(self) -> list[tuple[str, str | None]]:
        """The model and the cache salt of every request so far."""
        return [tuple(json.loads(line)) for line in (self._stopped / "salts").read_text().splitlines()]

    def kill(self) -> None:
        """Ends the server and its models at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
