"""The command line as a user runs it: a process of its own, its output and its exit code."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.scripted import ECHO, FOREVER, HELLO, ROOT, SILENCE, ScriptedServer, error, script

COMMAND = [sys.executable, "-m", "qwen3_vl_client", "ask"]


def environment(server: ScriptedServer) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "client" / "src"), "QWEN3_VL_URL": server.url, "TERM": "xterm"}


def run(server: ScriptedServer, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=environment(server), capture_output=True, text=True, timeout=120
    )


def test_answer_on_stdout_and_timings_on_stderr(server: ScriptedServer, video: Path) -> None:
    done = run(server, video, HELLO)
    assert (done.returncode, done.stdout) == (0, "It rains at 2.5 s: 雨\n")
    assert "3 tokens in" in done.stderr
    assert "prompt 120 tokens, 96 of video | preprocess: decode 0.25 s" in done.stderr
    assert done.stderr.count("\n") == 1


def test_json_is_one_object(server: ScriptedServer, video: Path) -> None:
    done = run(server, video, HELLO, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (answer["text"], answer["finish_reason"]) == ("It rains at 2.5 s: 雨", "stop")
    assert answer["usage"]["media"][0]["timestamps"] == [0.5, 2.5]
    assert answer["timings"]["total"] > 0
    assert len(answer["request_id"]) == 32


def test_flags_reach_the_server(server: ScriptedServer, video: Path) -> None:
    flags = "--max-tokens 5 --temperature 0 --top-p 0.5 --top-k 3 --seed 1 --stop a --stop b --sampling min_p=0.1"
    flags += " --fps 0.5 --max-frames 9 --start 1 --end 2.5 --option sampler=uniform --uri c/d.mp4"
    done = run(server, video, video, ECHO, "--image", video, *flags.split(), "--no-stream")
    echo = json.loads(done.stdout)
    assert echo["sampling_parameters"] == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 1,
        "stop": ["a", "b"],
        "min_p": 0.1,
    }
    assert echo["video_options"] == {"fps": 0.5, "max_frames": 9, "start": 1.0, "end": 2.5, "sampler": "uniform"}
    assert (echo["video"], echo["image"], echo["video_uri"]) == ([5, 5], [5], ["c/d.mp4"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([error("internal: step failed")], 1, "internal: step failed"),
        ([error("in ensemble 'qwen3_vl', invalid_argument: fps is -1")], 2, "invalid_argument: fps is -1"),
        (["no such file.mp4", HELLO], 2, "'no such file.mp4' does not exist"),
        ([], 2, "Missing argument"),
        ([HELLO, "--option", "fps"], 2, "KEY=VALUE"),
        ([HELLO, "--timeout", "0"], 2, "above 0"),
        ([HELLO, "--url", "http://127.0.0.1:8000"], 2, "host:port"),
        ([HELLO, "--url", "127.0.0.1:1"], 3, "make serve"),
        ([error("resource_exhausted: full")], 3, "resource_exhausted: full"),
        ([SILENCE, "--timeout", "0.5"], 4, "no complete answer within 0.5 s"),
    ],
)
def test_exit_codes(server: ScriptedServer, arguments: list[str], code: int, message: str) -> None:
    done = run(server, *arguments)
    assert done.returncode == code
    assert message in done.stderr


def test_error_as_json(server: ScriptedServer) -> None:
    done = run(server, error("invalid_argument: fps is -1"), "--json")
    described = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert (described["code"], described["message"]) == ("invalid_argument", "fps is -1")
    assert len(described["request_id"]) == 32


def test_interrupt_stops_the_request(server: ScriptedServer) -> None:
    steps = script(["echo"], ["text", "\n"], ["sleep", 20])
    process = subprocess.Popen(
        [*COMMAND, steps], env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    request_id = json.loads(process.stdout.readline())["id"]
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert (process.returncode, stderr) == (130, "stopped\n")
    assert server.was_stopped(request_id, wait_seconds=0)


def test_reader_that_leaves_stops_the_request(server: ScriptedServer) -> None:
    steps = script(["echo"], ["text", "\n"], *json.loads(FOREVER))
    process = subprocess.Popen([*COMMAND, steps], env=environment(server), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    request_id = json.loads(process.stdout.readline())["id"]
    process.stdout.close()
    process.wait(timeout=10)
    assert server.was_stopped(request_id, wait_seconds=0)


@pytest.mark.parametrize(("flags", "shown"), [([], True), (["--no-progress"], False)])
def test_progress_only_on_a_terminal(server: ScriptedServer, video: Path, flags: list[str], shown: bool) -> None:
    steps = script(["progress", "prefill", 1200, 640], ["sleep", 0.4], ["text", "Rain."], ["finish", "stop"])
    terminal, stderr = pty.openpty()
    done = subprocess.run(
        [*COMMAND, str(video), steps, *flags],
        env={**environment(server), "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        timeout=120,
    )
    os.close(stderr)
    display = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert done.stdout == b"Rain.\n"
    assert ("640 of 1,200 tokens" in display) == shown
    assert "3 tokens in" in display
