"""The commands of the README, run as they are printed; only addresses and file names are this test's."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(pattern: str) -> list[str]:
    return re.findall(pattern, README, re.DOTALL | re.MULTILINE)


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_python(server, media_root):
    # The one that asks the API is run by that one's tests.
    programs = [program for program in blocks(r"^```python\n(.*?)^```") if "openai" not in program]
    assert len(programs) == 2
    for program in programs:
        program = program.replace("127.0.0.1:8001", server.grpc_url)
        program = program.replace("holiday.mp4", str(media_root / "clips" / "clip.mp4"))
        assert run([sys.executable, "-c", program]).strip()


def test_curl(server):
    (command,) = blocks(r"^    (curl .*?)\n\n")
    command = command.replace("localhost:8000", server.http_url.removeprefix("http://"))
    command = command.replace("holiday.mp4", "clips/clip.mp4")
    printed = run(["bash", "-c", command])
    assert printed.startswith("data: {")
    assert "error" not in printed
