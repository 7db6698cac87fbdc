"""The pages name files, tests and make targets that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("model_repository", "build", "client", "perf", "tests", "docker", "requirements")
PAGES = sorted(path for folder in ("", *FOLDERS) for path in (ROOT / folder).glob("*.md"))


def paths(text: str) -> Iterator[str]:
    """What stands in backticks and begins with a top-level folder; placeholders and patterns are left out."""
    for quoted in re.findall(r"`([^`\n]+)`", text):
        for word in quoted.split():
            name = word.partition("::")[0].rstrip(",.;")
            if name.split("/")[0] in FOLDERS and "/" in name and not re.search(r"[*…{}<>$=]|[A-Z]{3,}", name):
                yield name


def modules(text: str) -> Iterator[str]:
    yield from re.findall(r"python -m ((?:build|perf|tests)(?:\.\w+)+)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    gone = {name for name in paths(text) if not (ROOT / name).exists()}
    gone |= {link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if not (page.parent / link).exists()}
    gone |= {name for name in modules(text) if not list(ROOT.glob(name.replace(".", "/") + "*"))}
    assert not gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*(?: [a-z][\w-]*)*):", makefile, re.MULTILINE))
    known = {target for line in targets for target in line.split()}
    code = re.findall(r"`[^`\n]+`|^ {4}.+$", page.read_text(), re.MULTILINE)
    named = {target for line in code for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", line)}
    assert named <= known
