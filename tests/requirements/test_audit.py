"""`make audit` never says that nothing was found where nothing could be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / "requirements" / "audit.py"
# In place of pip-audit: answers as it does, for a service as `answers` says. Unknown packages and services that cannot
# be reached look as they do in pip-audit 2.10.
STAND_IN = """#!{python}
import json, re, sys
answers = json.loads({answers!r})
service = next(word[2:] for word in sys.argv if word.startswith("-s"))
if answers[service] == "down":
    sys.exit("ConnectionError: Failed to resolve")
packages = []
for name, version in re.findall(r"^([a-z0-9-]+)(?:\\[[a-z]+\\])?==([^ \\n]+)", open(sys.argv[-1]).read(), re.MULTILINE):
    if answers[service] == "unknown" or name in answers[service].get("unknown", []):
        packages.append({{"name": name, "skip_reason": f"Dependency not found on PyPI: {{name}}"}})
    else:
        vulns = [{{"id": hole}} for hole in answers[service].get(name, [])]
        packages.append({{"name": name, "version": version, "vulns": vulns}})
print(json.dumps({{"dependencies": packages, "fixes": []}}))
print("No known vulnerabilities found", file=sys.stderr)
"""


def audit(folder: Path, answers: dict[str, object]) -> subprocess.CompletedProcess[str]:
    program = folder / "pip-audit"
    program.write_text(STAND_IN.format(python=sys.executable, answers=json.dumps(answers)))
    program.chmod(0o755)
    return subprocess.run([sys.executable, AUDIT, "--pip-audit", program], capture_output=True, text=True)


@pytest.mark.parametrize("pypi", ["down", "unknown"])
def test_no_database_is_told_as_such(tmp_path: Path, pypi: str) -> None:
    """An index without advisories looks, to pip-audit, like one that does not know the packages: it exits with 0."""
    run = audit(tmp_path, {"pypi": pypi, "osv": "down"})
    assert run.returncode == 3
    assert "NOT AUDITED: no database" in run.stdout
    assert "asked about" not in run.stdout


def test_known_holes_are_named(tmp_path: Path) -> None:
    run = audit(tmp_path, {"pypi": {"pillow": ["PYSEC-1", "PYSEC-2"], "torch": ["PYSEC-3"]}, "osv": "down"})
    assert run.returncode == 1
    assert ": PYSEC-1, PYSEC-2\n" in run.stdout
    assert "PYSEC-3" in run.stdout


def test_the_second_database_is_asked_where_the_first_is_not_there(tmp_path: Path) -> None:
    run = audit(tmp_path, {"pypi": "unknown", "osv": {"pillow": ["GHSA-1"]}})
    assert run.returncode == 1
    assert "GHSA-1" in run.stdout


def test_one_package_that_nobody_knows_is_no_clean_audit(tmp_path: Path) -> None:
    run = audit(tmp_path, {"pypi": {"unknown": ["pysubs2"]}, "osv": "down"})
    assert run.returncode == 3
    assert "no database answered: " in run.stdout
    assert "pysubs2" in run.stdout


def test_what_no_database_covers_is_always_said(tmp_path: Path) -> None:
    run = audit(tmp_path, {"pypi": {}, "osv": "down"})
    assert run.returncode == 0
    assert "Triton Inference Server 2.51" in run.stdout
