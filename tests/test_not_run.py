"""The tests that were not run: `make test` lists them, and `.ci/run` fails."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_runs(): pass

@pytest.mark.skip(reason="curl is missing: apt install curl")
def test_curl(): pass

@pytest.mark.gpu
@pytest.mark.skip(reason="needs a GPU")
def test_gpu(): pass

@pytest.mark.xfail
def test_known(): assert False
"""


def run_tests(folder: Path, *options: str, content: str = TESTS) -> subprocess.CompletedProcess[str]:
    (folder / "test_some.py").write_text(content)
    configuration = f"--config-file={ROOT / 'pyproject.toml'}"
    command = [sys.executable, "-m", "pytest", "--quiet", configuration, f"--rootdir={folder}", *options, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_skipped_tests_are_listed_by_what_they_need(tmp_path: Path) -> None:
    done = run_tests(tmp_path)
    assert done.returncode == 0, done.stdout
    end = done.stdout[done.stdout.index(" not run ") :].splitlines()
    assert end[1:5] == [
        "curl is missing: apt install curl",
        "  test_some.py::test_curl",
        "needs a GPU",
        "  test_some.py::test_gpu",
    ]


def test_no_skips_fails_all_but_those_of_a_gpu(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "--no-skips")
    assert done.returncode == 1
    assert "not run: curl is missing: apt install curl" in done.stdout
    assert "1 passed, 1 skipped, 1 xfailed, 1 error" in done.stdout


def test_no_skips_fails_a_whole_file(tmp_path: Path) -> None:
    content = "import pytest\npytest.importorskip('no_such_module', reason='pip install it')\n"
    done = run_tests(tmp_path, "--no-skips", content=content)
    assert done.returncode != 0
    assert "not run: pip install it" in done.stdout
