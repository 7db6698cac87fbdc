"""`qwen3-vl summarize` and `Client.summarize` against a scripted server, whose answers are prose: a chapter a part."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen3_vl_client import Client, Summary, SummaryOptions
from qwen3_vl_client.summaries import Cut, Merged, PartDone
from tests.client.scripted import ROOT, ScriptedServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    running = ScriptedServer(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


def environment(server: ScriptedServer, cache: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "client" / "src"),
        "QWEN3_VL_URL": server.url,
        "XDG_CACHE_HOME": str(cache),
    }


def run(server: ScriptedServer, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwen3_vl_client", "summarize", *arguments]
    return subprocess.run(command, env=environment(server, cache), capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("markdown", "# At 2.5 s.\n\n"),
        ("json", '{\n  "title": "At 2.5 s."'),
        ("srt", "1\n00:00:00,000 --> 00:03:20,000\nAt 2.5 s.\n\n2\n00:03:20,000 --> 00:06:40,000\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:03:20.000\n"),
    ],
)
def test_formats(server: ScriptedServer, tmp_path: Path, form: str, begins: str) -> None:
    done = run(server, tmp_path, "--uri", "film.mp4", "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(begins)
    assert list((tmp_path / "qwen3-vl" / "summaries").iterdir()) == [], "the journal of a complete summary is gone"


def test_chapters_are_told_on_a_terminal_while_parts_are_done(server: ScriptedServer, tmp_path: Path) -> None:
    terminal, stderr = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen3_vl_client", "summarize", "--uri", "film.mp4", "--part-seconds", "200"],
        env={**environment(server, tmp_path), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    os.close(stderr)
    output, _ = process.communicate(timeout=60)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert "0:00 At 2.5 s." in shown
    assert "3:20 At 2.5 s." in shown
    assert output.startswith("# ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "one video"),
        (["no such file.mp4"], 2, "'no such file.mp4' does not exist"),
        (["--uri", "a.mp4", "--part-seconds", "0"], 2, "part_seconds is 0.0; at least 1"),
        (["--uri", "a.mp4", "--url", "127.0.0.1:1"], 3, "make serve"),
    ],
)
def test_exit_codes(server: ScriptedServer, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = run(server, tmp_path, *arguments)
    assert done.returncode == code
    assert message in " ".join(done.stderr.split())


def test_error_as_json(server: ScriptedServer, tmp_path: Path) -> None:
    done = run(server, tmp_path, "--uri", "a.mp4", "--format", "json", "--url", "127.0.0.1:1")
    assert json.loads(done.stdout)["error"]["code"] == "unavailable"


def test_blocking_client(server: ScriptedServer, tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    video.write_bytes(b"film")
    with Client(server.url) as client:
        events = list(client.summarize(video, options=SummaryOptions(part_seconds=200, journal=tmp_path / "journal")))
        assert [type(event) for event in events] == [Cut, PartDone, PartDone, Merged, Summary]
        leaving = client.summarize(video)
        assert isinstance(next(leaving), Cut)
        leaving.close()
