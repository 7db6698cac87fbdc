"""pytest, as pyproject.toml configures it, finds every file of tests: a folder that it leaves out is noticed here."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Prints the files that pytest would import. It imports none, so this takes a second.
_LIST_FILES = """
import pytest

class Unread(pytest.Module):
    def collect(self):
        print("found", self.path)
        return []

class Files:
    def pytest_pycollect_makemodule(self, module_path, parent):
        return Unread.from_parent(parent, path=module_path)

pytest.main(["--collect-only", "--quiet", "--noconftest", "--capture=no"], plugins=[Files()])
"""


def test_every_file_of_tests_is_collected() -> None:
    listed = subprocess.run([sys.executable, "-c", _LIST_FILES], cwd=ROOT, capture_output=True, text=True, check=True)
    found = {line.removeprefix("found ") for line in listed.stdout.splitlines() if line.startswith("found ")}
    written = {str(path) for path in ROOT.glob("tests/**/test_*.py")}
    assert written
    assert written - found == set()
