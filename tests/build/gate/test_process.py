"""The gate's own process: it says when it listens and why it does not, and ends with whoever started it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from build.serve.gate.settings import GateSettings
from build.serve.gate_process import Gate, GateError
from tests.build.gate.doors import LONG, asked, fetch, opened, settings, string, tell
from tests.support import wire


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the gate is still there"
        time.sleep(0.05)


@pytest.mark.parametrize("port", ["grpc_port", "http_port", "metrics_port"])
def test_a_port_that_is_taken_is_named(triton, gate, log, port):
    taken = int(getattr(gate, port.removesuffix("_port")).rpartition(":")[2])
    with pytest.raises(GateError, match=str(taken) if port == "grpc_port" else "in use"):
        Gate(settings(triton, **{port: taken}), log).start()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"access": ""}, "access is empty"),
        ({"max_calls": 0}, "max_calls is 0"),
        ({"max_request_mib": 4096}, "at most 2047"),
        ({"max_held_mib": 100}, "at least one request of 512 MiB"),
        ({"stall_seconds": -1}, "stall_seconds is -1"),
    ],
)
def test_settings_that_cannot_be_used_are_named(triton, values, why):
    with pytest.raises(ValueError, match=why):
        settings(triton, **values)


def test_settings_travel_as_one_line(triton):
    chosen = settings(triton, public_hosts=("video.example",))
    assert "\n" not in chosen.to_json()
    assert GateSettings.from_json(chosen.to_json()) == chosen
    for text in ("[]", '{"hosts": 1}', "no JSON"):
        with pytest.raises(ValueError):
            GateSettings.from_json(text)


def test_no_secret_is_on_its_command_line_or_in_its_environment(gate):
    for name in ("cmdline", "environ"):
        assert b"a-secret-of-the-server" not in Path(f"/proc/{gate.pid}/{name}").read_bytes()


def test_it_ends_with_its_parent(triton, log):
    chosen = settings(triton)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from build.serve.gate_process import Gate; from build.serve.gate.settings import GateSettings\n"
        f"gate = Gate(GateSettings.from_json({chosen.to_json()!r}), Path({str(log)!r})); gate.start()\n"
        "print(gate.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    with parent:
        pid = int(parent.stdout.readline())
        assert fetch(f"http://127.0.0.1:{chosen.http_port}", "/v2")[0] == 200
        parent.kill()
    wait_gone(pid)


def test_what_runs_may_end_when_it_is_told_to(triton, log):
    """An answer that ends within the time is complete; one that does not is cut."""
    answers: list = []
    with opened(triton, log, drain_seconds=2) as doors:
        short = wire.question("Go on", sampling={**LONG, "max_tokens": 100})
        asking = threading.Thread(target=lambda: answers.extend(wire.ask_together(doors.grpc, [short])))
        endless = wire.Request(doors.grpc, wire.question("Go on", sampling=LONG))
        next(iter(endless))
        asking.start()
        while wire.engine_state(doors.grpc)["sessions"] < 2 and not answers:
            time.sleep(0.01)
        os.kill(doors.pid, signal.SIGTERM)
        assert doors.process.wait(30) == 0
        asking.join()
        endless.close()
    assert answers[0].finish_reason == "length"
    wire.wait_idle(triton.grpc_url, seconds=15)


def test_it_can_be_started_again(triton, log):
    with opened(triton, log) as doors:
        os.kill(doors.pid, signal.SIGKILL)
        assert doors.process.wait(10) == -signal.SIGKILL
        doors.process.start()
        assert doors.process.exit_status() is None
        assert fetch(doors.http, "/v2")[0] == 200


def test_a_server_that_is_away_is_said_to_be(triton, log):
    with opened(triton, log, triton_grpc="127.0.0.1:1", triton_http="http://127.0.0.1:1") as doors:
        status, text = fetch(doors.http, "/v2/health/ready")
        assert (status, "does not answer" in text) == (503, True)
        with pytest.raises(grpc.RpcError, match="onnect") as away:
            tell(doors.grpc, asked("qwen3_vl", ("text_input", "BYTES", [1], string(b"Hello"))))
        assert away.value.code() is grpc.StatusCode.UNAVAILABLE
