"""What client/API.md and the README show is run as it stands, but for the address."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from qwen3_vl_client.front.settings import Settings
from tests.support import needs
from tests.support.front import running

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "client" / "API.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE + (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def open_api(settings: Settings, media_root: Path) -> Iterator[str]:
    shutil.copy(media_root / "clips" / "clip.mp4", media_root / "holiday.mp4")
    with running(replace(settings, api_keys={}, models=("qwen3-vl-demo",))) as url:
        yield url
        # Nothing of them is left for other tests to find.
        with httpx2.Client(base_url=f"{url}/v1") as http:
            for file in http.get("/files").json()["data"]:
                http.delete(f"/files/{file['id']}")


@pytest.mark.parametrize("program", [program for program in PROGRAMS if "openai" in program], ids=["API.md", "README"])
def test_python(open_api: str, media_root: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program.replace("http://127.0.0.1:8080", open_api)],
        cwd=media_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@needs.program("curl")
def test_curl(open_api: str) -> None:
    [command] = re.findall(r"^    (curl .*?\}'\n)", PAGE, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        command.replace("http://127.0.0.1:8080", open_api), shell=True, capture_output=True, text=True, timeout=60
    )
    assert '"chat.completion"' in done.stdout
