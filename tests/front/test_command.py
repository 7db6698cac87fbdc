"""The command `qwen3-vl-front`, those that it replaced, and the program before a server: what is started is ended."""

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
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from build.serve.front import run_front
from build.serve.server.triton import free_ports
from build.serve.supervisor.supervisor import ServerError
from qwen3_vl_client.front import command, replaced
from qwen3_vl_client.front.settings import Settings
from tests.support.front import wait_until
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
        [sys.executable, "-m", "qwen3_vl_client.front.command", *options, "--api-keys", str(keys)],
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
    assert "the page is not served" in output


def test_it_says_what_is_wrong(media_root: Path, tmp_path: Path) -> None:
    for options, reason in (
        (["--media-root", str(tmp_path / "nothing")], "is not a folder"),
        (["--media-root", str(media_root), "--url", "nonsense"], "host:port"),
        (["--media-root", str(media_root), "--api-keys", str(tmp_path / "none")], "No such file"),
    ):
        done = CliRunner().invoke(command.app, options, env={"COLUMNS": "200"})
        assert done.exit_code == 2
        assert reason in " ".join(done.output.split())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Settings, int]]:
    """Runs a command with arguments; gives the settings and the port that it would serve with."""
    made: list[Settings] = []
    ports: list[int] = []
    create_app = command.create_app

    def noted(settings: Settings) -> Any:
        made.append(settings)
        return create_app(settings)

    monkeypatch.setattr(command, "create_app", noted)
    monkeypatch.setattr(command, "serve_app", lambda app, host, port, *bounds, **options: ports.append(port))

    def run(main: Callable[[], None], *arguments: str) -> tuple[Settings, int]:
        monkeypatch.setattr(sys, "argv", ["command", "--media-root", str(tmp_path), *arguments])
        before = os.umask(0o077)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            os.umask(before)
        assert not ended.value.code
        return made[-1], ports[-1]

    return run


def test_options_are_settings(run: Callable[..., tuple[Settings, int]], tmp_path: Path) -> None:
    assert run(command.main) == (Settings(tmp_path), 8080)
    named = ("--upload-quota-mib", "3", "--upload-expiry-hours", "2", "--upload-free-mib", "0", "--page-max-body-mib=1")
    settings, _ = run(command.main, *named, "--views-per-minute", "7", "--max-fetch-seconds", "1.5")
    assert (settings.upload_quota_bytes, settings.upload_expiry_seconds) == (3 * 2**20, 7200)
    assert (settings.upload_free_bytes, settings.page_max_body_bytes) == (0, 2**20)
    assert (settings.views_per_minute, settings.max_fetch_seconds) == (7, 1.5)


def test_beside_keys_the_page_is_served_only_if_it_is_asked_for(
    run: Callable[..., tuple[Settings, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ann secret\n")
    settings, _ = run(command.main, "--api-keys", str(keys))
    assert not settings.serves_page
    assert "--page serves it" in capsys.readouterr().err
    settings, _ = run(command.main, "--api-keys", str(keys), "--page")
    assert settings.serves_page
    assert "the page asks for no key" in capsys.readouterr().err


def test_the_commands_of_before_serve_what_they_served(
    run: Callable[..., tuple[Settings, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = ("--max-body-mib", "2", "--requests-per-minute=5", "--concurrent-requests", "3", "--uploads-at-once", "1")
    settings, port = run(replaced.api, *bounds, "--model", "a")
    assert (settings.api, settings.serves_page, port, settings.models) == (True, False, 8080, ("a",))
    assert (settings.max_body_bytes, settings.requests_per_minute, settings.concurrent_requests) == (2 * 2**20, 5, 3)
    [told] = [line for line in capsys.readouterr().err.splitlines() if "replaced" in line]
    assert "qwen3-vl-front --no-page" in told
    settings, port = run(replaced.web, *bounds)
    assert (settings.api, settings.serves_page, port, settings.uploads_at_once) == (False, True, 7860, 1)
    assert settings.page_max_body_bytes == 2 * 2**20
    assert (settings.page_requests_per_minute, settings.page_concurrent_requests) == (5, 3)
    assert settings.requests_per_minute == Settings.requests_per_minute
    assert run(replaced.web, "--port", "8000")[1] == 8000


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
