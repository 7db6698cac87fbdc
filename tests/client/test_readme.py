"""What client/README.md shows is run as it stands, but for the addresses."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qwen3_vl_client import AsyncClient, Client
from tests.client.scripted import ROOT, ScriptedServer
from tests.support import needs

README = (ROOT / "client" / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "holiday.mp4").write_bytes(b"video")
    return tmp_path


def run_python(code: str, server: ScriptedServer, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code.replace("127.0.0.1:8001", server.url)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "client" / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_library(server: ScriptedServer, folder: Path) -> None:
    out = run_python(PYTHON[0], server, folder)
    assert out.startswith("At 2.5 s. stop\n96 (0.5, 2.5) ")
    assert out.endswith("64 of 120 tokens\nAt 2.5 s.")


def test_conversation(server: ScriptedServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with Client(server.url) as client:
        names = {"client": client}
        exec(PYTHON[1], names)
    assert [turn["role"] for turn in names["turns"]] == ["user", "assistant", "user"]
    assert names["answer"].text == "At 2.5 s."


def test_asyncio(server: ScriptedServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    body = "".join(f"    {line}\n" for line in PYTHON[2].splitlines())
    names = {"asyncio": asyncio, "AsyncClient": lambda: AsyncClient(server.url), "paths": ["holiday.mp4"] * 2}
    exec(f"async def main():\n{body}    return answers", names)
    assert [answer.text for answer in asyncio.run(names["main"]())] == ["At 2.5 s."] * 2


def test_plain_tritonclient(server: ScriptedServer, folder: Path) -> None:
    assert run_python(PYTHON[3], server, folder) == "At 2.5 s."


@needs.program("curl")
def test_curl(server: ScriptedServer) -> None:
    command = re.search(r"    (curl -N .*?\}'\n)", README, re.DOTALL)[1].replace(
        "http://127.0.0.1:8000", server.http_url
    )
    out = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120).stdout
    assert "".join(re.findall(r'data: .*"text_output":"(.*?)"', out)) == "At 2.5 s."
