"""The command `qwen3-vl-api`, and the program before a server: what is started is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from typer.testing import CliRunner

from build.serve.front import run_front
from build.serve.server.triton import free_ports
from build.serve.supervisor.supervisor import ServerError
from qwen3_vl_client.api.__main__ import app
from tests.api.stack import wait_until
from tests.support.serving import Server


def wait_for(url: str, process: subprocess.Popen[str]) -> httpx2.Response:
    for _ in range(600):
        assert process.poll() is None, process.communicate()
        try:
            return httpx2.get(url)
        except httpx2.TransportError:
            time.sleep(0.05)
    raise TimeoutError(url)


def test_it_serves_until_it_is_told_to_end(
    triton: Server, media_root: Path, tmp_path: Path, sessions: Callable[[], int]
) -> None:
    (port,) = free_ports("127.0.0.1", 1)
    keys = tmp_path / "keys"
    keys.write_text("ann secret\n")
    options = ["--media-root", str(media_root), "--port", str(port), "--model", "a", "--model", "b"]
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen3_vl_client.api", *options, "--api-keys", str(keys)],
        env={**os.environ, "QWEN3_VL_URL": triton.grpc_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert wait_for(f"http://127.0.0.1:{port}/health", process).json()["status"] == "ok"
    headers = {"authorization": "Bearer secret"}
    models = httpx2.get(f"http://127.0.0.1:{port}/v1/models", headers=headers).json()["data"]
    assert [model["id"] for model in models] == ["a", "b"]
    # A client that is being answered does not keep it.
    body = {"model": "a", "messages": [{"role": "user", "content": "Go on"}], "max_tokens": 8000, "stream": True}
    with httpx2.stream(
        "POST", f"http://127.0.0.1:{port}/v1/chat/completions", json={**body, "ignore_eos": True}, headers=headers
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    wait_until(lambda: sessions() == 0, 3)
    assert output.startswith(f"API at http://127.0.0.1:{port}/v1")


def test_it_says_what_is_wrong(media_root: Path, tmp_path: Path) -> None:
    for options, reason in (
        (["--media-root", str(tmp_path / "nothing")], "is not a folder"),
        (["--media-root", str(media_root), "--url", "nonsense"], "host:port"),
        (["--media-root", str(media_root), "--api-keys", str(tmp_path / "none")], "No such file"),
    ):
        done = CliRunner().invoke(app, options, env={"COLUMNS": "200"})
        assert done.exit_code == 2
        assert reason in " ".join(done.output.split())


class Deployment:
    """Of a server that ends when it is told to."""

    triton = SimpleNamespace(grpc_target="127.0.0.1:1")
    access = SimpleNamespace(access="a-secret")

    def __init__(self, error: ServerError | None = None) -> None:
        self.ended = threading.Event()
        self.error = error

    def wait(self) -> None:
        self.ended.wait()
        if self.error is not None:
            raise self.error


def test_the_program_ends_with_the_server() -> None:
    deployment = Deployment(ServerError("the server died"))
    threading.Timer(0.3, deployment.ended.set).start()
    with pytest.raises(ServerError, match="the server died"):
        run_front(["sleep", "60"], deployment)


def test_the_server_ends_with_the_program(tmp_path: Path) -> None:
    told = tmp_path / "told"
    run_front(["sh", "-c", f"echo $QWEN3_VL_URL $QWEN3_VL_ACCESS > {told}"], Deployment())
    assert told.read_text() == "127.0.0.1:1 a-secret\n"
    with pytest.raises(ServerError, match="ended with status 3"):
        run_front(["sh", "-c", "exit 3"], Deployment())
