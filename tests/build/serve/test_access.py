"""Control of the server is the supervisor's alone, and nobody sees the secret that says so."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from build.serve.server import concealed
from build.serve.server.access import CONTROL_HEADER, Access
from build.serve.server.triton import STAGES
from tests.support import wire
from tests.support.processes import descendants, shared_memory_of
from tests.support.serving import Server

CONTROL = {
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
    "RepositoryModelLoad": service_pb2.RepositoryModelLoadRequest(model_name="decoder"),
    "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="decoder"),
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="a", key="/b", byte_size=1),
    "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "TraceSetting": service_pb2.TraceSettingRequest(),
    "LogSettings": service_pb2.LogSettingsRequest(),
}
CONTROL_PATHS = (
    "repository/index",
    "repository/models/decoder/load",
    "repository/models/decoder/unload",
    "systemsharedmemory/region/a/register",
    "systemsharedmemory/unregister",
    "logging",
    "trace/setting",
)


@pytest.fixture(scope="module")
def server(toy_stages):
    with Server(Path(), assemble=toy_stages) as running:
        yield running


def post(server: Server, path: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(f"{server.http_url}/v2/{path}", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_code_that_is_sent_does_not_run(server, tmp_path):
    """As a page of another site would send it from the operator's own browser, too."""
    trace = tmp_path / "ran"
    code = f"open({str(trace)!r}, 'w')\nclass TritonPythonModel:\n    def execute(self, requests): return []\n"
    config = {"name": "mine", "backend": "python", "input": [], "output": []}
    files = {"config": json.dumps(config), "file:1/model.py": base64.b64encode(code.encode()).decode()}
    body = json.dumps({"parameters": files}).encode()
    before = server.pids()
    assert post(server, "repository/models/mine/load", body) == 403
    page = {"Content-Type": "text/plain", "Origin": "https://elsewhere.example", "Host": "elsewhere.example"}
    assert post(server, "repository/models/mine/load", body, **page) == 403
    assert post(server, "repository/models/mine/load", body, **{CONTROL_HEADER: "0" * 64}) == 403
    assert not trace.exists()
    assert server.pids() == before


@pytest.mark.parametrize("path", CONTROL_PATHS)
def test_control_over_http_is_refused(server, path):
    assert post(server, path, b"{}") == 403


@pytest.mark.parametrize("method", CONTROL)
def test_control_over_grpc_is_refused(server, method):
    with grpc.insecure_channel(server.grpc_url) as channel:
        call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method)
        with pytest.raises(grpc.RpcError) as refused:
            call(CONTROL[method], timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "restricted" in refused.value.details()


def test_nobody_sees_the_secret(server):
    """Not in any process' arguments, not in what the stages inherit, not in the log."""
    secret = server.access.control
    pids = server.pids()
    shown = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in pids.values()}
    assert f"{CONTROL_HEADER}=(hidden)" in shown[pids["triton"]]
    inherited = [Path(f"/proc/{pids[stage]}/environ").read_bytes().decode() for stage in STAGES]
    assert not [text for text in (*shown.values(), *inherited, server.log()) if secret in text]
    everybody = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [arguments for arguments in everybody if secret.encode() in arguments]


def test_the_secret_outlives_a_stage_and_a_server(server):
    for name in ("decoder", "triton"):
        os.kill(server.pids()[name], signal.SIGKILL)
        server.wait_ready(60)
    assert wire.ask(server.grpc_url, wire.question("hi", sampling={"max_tokens": 1})).finish_reason == "length"
    assert post(server, "repository/index", b"{}") == 403
    assert post(server, "repository/index", b"{}", **server.access.headers()) == 200


def test_what_the_server_writes_is_its_own_users(server):
    pids = server.pids()
    regions = shared_memory_of([pids[stage] for stage in STAGES])
    assert regions
    for path in (*regions, server.log_path):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_secrets_are_drawn_anew():
    first, second = Access.draw(gated=True), Access.draw(gated=True)
    assert len({first.control, first.access, second.control, second.access}) == 4
    assert len(Access.draw(gated=False).options()) == 2
    assert not any(first.control in shown or first.access in shown for shown in first.options())


PROGRAM = """
import os, subprocess, sys
print(sys.argv[1:], flush=True)
print(open(f'/proc/{os.getpid()}/cmdline').read().split(chr(0))[3:-1], flush=True)
print(subprocess.run(['env'], capture_output=True, text=True).stdout)
"""


def run(arguments: list[str], hidden: dict[str, str], output: Path) -> list[str]:
    with output.open("wb") as file:
        process = concealed.start([sys.executable, "-c", PROGRAM, *arguments], hidden, dict(os.environ), file)
    assert process.wait(20) == 0
    return output.read_text().splitlines()


def test_a_program_gets_arguments_that_nobody_sees(tmp_path):
    hidden = {"--a=(hidden)": "--a=first", "--b=(hidden)": "--b=" + "second " * 1000}
    given, shown, *environment = run(["plain", *hidden], hidden, tmp_path / "output")
    assert given == str(["plain", *hidden.values()])
    assert shown == str(["plain", *hidden])
    assert not [line for line in environment if "first" in line or "second" in line or "CONCEALED" in line]


def test_where_nothing_can_be_hidden_it_is_said(tmp_path, monkeypatch):
    class Forbidden:
        prctl = concealed._libc.prctl

        def ptrace(self, *arguments: object) -> int:
            return -1

    monkeypatch.setattr(concealed, "_libc", Forbidden())
    with pytest.raises(concealed.ConcealmentError, match="ptrace"):
        run(["--a=(hidden)"], {"--a=(hidden)": "--a=first"}, tmp_path / "output")
    assert run(["plain"], {}, tmp_path / "output")[0] == "['plain']"


def test_a_program_that_does_not_exist_is_named(tmp_path):
    with (tmp_path / "output").open("wb") as file, pytest.raises(FileNotFoundError, match="nowhere"):
        concealed.start(["/nowhere", "--a=(hidden)"], {"--a=(hidden)": "--a=first"}, dict(os.environ), file)
    assert not descendants(os.getpid()) or subprocess.run(["true"], check=True)
