"""`make front`, `make api` and `make webui`: one application, with everything it needs; all ends on Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from build.assemble.checkpoint_factory import make_checkpoint
from build.serve.server.triton import STAGES, free_ports
from tests.support.processes import descendants, is_gone, shared_memory_of

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or Path(sys.prefix) != ROOT / ".venv",
    reason="make and .venv are not in use: apt install make, then make test",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder)
    return folder


@pytest.fixture(params=["front", "api", "webui"])
def running(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """`make TARGET` in a group of its own, as a terminal starts it, once it serves; and its ports."""
    names = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "HEALTH_PORT", "FRONT_PORT", "API_PORT", "WEBUI_PORT")
    ports = dict(zip(names, free_ports("127.0.0.1", len(names)), strict=True))
    process = subprocess.Popen(
        [
            *("make", request.param, f"MODEL={checkpoint}", f"REPOSITORY={tmp_path}/repository"),
            *(f"MEDIA_ROOT={tmp_path}/media", "SET=decoder.kv_cache_tokens=4096"),
            *(f"{name}={port}" for name, port in ports.items()),
        ],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("page at"):
            break
    else:
        pytest.fail("".join(said))
    yield process, ports
    os.killpg(process.pid, signal.SIGTERM) if process.poll() is None else None
    process.wait()


def answered(port: int) -> list[httpx2.Response]:
    """By the page and by the API."""
    url = f"http://127.0.0.1:{port}"
    with httpx2.Client(base_url=url, transport=httpx2.HTTPTransport(retries=5), timeout=60) as http:
        body = {"turns": [{"role": "user", "text": "Hello"}], "options": {"max_tokens": 4}}
        page = http.post("/ask", json=body)
        model = http.get("/v1/models").json()["data"][0]["id"]
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        return [page, http.post("/v1/chat/completions", json=body)]


def test_it_serves_until_ctrl_c(
    running: tuple[subprocess.Popen[str], dict[str, int]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    process, ports = running
    for answer in answered(ports[f"{request.node.callspec.params['running'].upper()}_PORT"]):
        assert answer.status_code == 200, answer.text
        assert "error" not in answer.text
    started = descendants(process.pid)
    regions = shared_memory_of(started)
    assert len(regions) == len(STAGES)

    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert [pid for pid in started if not is_gone(pid)] == []
    assert [region for region in regions if region.exists()] == []
    assert list(tmp_path.glob("qwen3-vl-*")) == []
    for port in ports.values():
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
