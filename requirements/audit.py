"""Ask databases for the known holes of every locked version: `make audit`.

Exit status: 0 nothing known, 1 holes are known, 3 something could not be asked about: then nothing is promised of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parent
CLEAN, HOLES, UNKNOWN = 0, 1, 3
# PyPI's own advisories, and a database that also knows what was withdrawn from PyPI.
SERVICES = ("pypi", "osv")

UNCOVERED = """\
No database of Python packages covers these; SECURITY.md says what is known and what stands before them:
  Triton Inference Server 2.51, inside nvidia-pytriton
  FFmpeg inside av, and the image libraries inside pillow
  the base images of docker/*.Dockerfile, with NVIDIA's server, CUDA and TensorRT"""


@dataclass
class Findings:
    """Holes by `name version`, and what no service answered about; `asked` counts the packages with an answer."""

    holes: dict[str, set[str]] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)


def ask(program: str, file: Path, service: str) -> list[dict[str, Any]] | None:
    """pip-audit's answer for each package of `file`; None where the service cannot be reached."""
    command = [program, "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", f"-s{service}"]
    run = subprocess.run([*command, "-r", file], capture_output=True, text=True)
    try:
        return list(json.loads(run.stdout)["dependencies"])
    except (json.JSONDecodeError, KeyError):
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{file.name}: {service} gave no answer: {reason}", file=sys.stderr)
        return None


def audit(program: str, files: Sequence[Path]) -> Findings:
    """Asks one service after the other about each file, until one has answered about every package of it."""
    findings = Findings()
    silent: set[str] = set()
    for file in files:
        open_questions: set[str] = {file.name}
        for service in SERVICES:
            if service in silent or not open_questions:
                continue
            packages = ask(program, file, service)
            if packages is None:
                silent.add(service)
                continue
            # A service that cannot be reached looks, to pip-audit, like one that does not know the package.
            open_questions = {str(package["name"]) for package in packages if "skip_reason" in package}
            if packages and len(open_questions) == len(packages):
                silent.add(service)
            for package in packages:
                if "skip_reason" in package:
                    continue
                name = f"{package['name']} {package['version']}"
                findings.asked.add(name)
                if package["vulns"]:
                    ids = {str(hole["id"]) for hole in package["vulns"]}
                    findings.holes.setdefault(name, set()).update(ids)
        findings.unanswered |= open_questions
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pip-audit", default="pip-audit", metavar="PROGRAM")
    program = parser.parse_args(arguments).pip_audit
    findings = audit(program, [*sorted((REQUIREMENTS / "locked").glob("*.txt")), REQUIREMENTS / "torch.txt"])
    for name, ids in sorted(findings.holes.items()):
        print(f"{name}: {', '.join(sorted(ids))}")
    if findings.unanswered and not findings.asked:
        print("NOT AUDITED: no database of known holes can be reached from here. Nothing is known of any package.")
    elif findings.unanswered:
        print(f"NOT AUDITED, no database answered: {', '.join(sorted(findings.unanswered))}")
    if findings.asked:
        print(f"{len(findings.asked)} versions asked about, {len(findings.holes)} with known holes")
    print(UNCOVERED)
    if findings.holes:
        return HOLES
    return UNKNOWN if findings.unanswered else CLEAN


if __name__ == "__main__":
    sys.exit(main())
