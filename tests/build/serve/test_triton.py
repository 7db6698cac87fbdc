"""The command line, addresses and environment that a server is started with."""

import os
from pathlib import Path

import pytest

from build.serve.server import triton
from build.serve.server.triton import Endpoints, Installation


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("gpu-7", "http://gpu-7:8000"),
    ],
)
def test_addresses_that_a_client_can_connect_to(host, url):
    endpoints = Endpoints(host, 8000, 8001, 8002, 8003)
    assert endpoints.url(endpoints.http) == url
    assert endpoints.grpc_target == url.removeprefix("http://").replace("8000", "8001")


def test_command_line():
    installation = Installation(Path("/t/bin/tritonserver"), Path("/t/backends"), ())
    command = triton.command(installation, Path("/r"), Endpoints("10.0.0.1", 1, 2, 3, 4))
    assert command[0] == "/t/bin/tritonserver"
    assert "--model-control-mode=explicit" in command
    assert "--disable-auto-complete-config" in command
    assert {word for word in command if word.startswith("--load-model=")} == {
        f"--load-model={model}" for model in ("decoder", "vision_encoder", "video_preprocess", "qwen3_vl")
    }
    assert {"--http-port=1", "--grpc-port=2", "--metrics-port=3"} < set(command)
    assert {f"--{door}-address=10.0.0.1" for door in ("http", "grpc", "metrics")} < set(command)


def test_environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "tests:build")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/already")
    environment = Installation(Path("/t"), Path("/b"), (Path("/one"), Path("/two"))).environment()
    assert environment["LD_LIBRARY_PATH"] == "/one:/two:/already"
    assert "PYTHONPATH" not in environment
    assert environment["HOME"] == os.environ["HOME"]


def test_a_container_s_own_triton_is_used(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tritonserver").touch()
    monkeypatch.setattr(triton, "SYSTEM", tmp_path)
    found = triton.find(tmp_path / "cache")
    assert found == Installation(tmp_path / "bin" / "tritonserver", tmp_path / "backends", ())
    assert not (tmp_path / "cache").exists()


def test_free_ports_differ():
    assert len(set(triton.free_ports("127.0.0.1", 20))) == 20
