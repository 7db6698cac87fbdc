"""Marks of tests that need a program or a package. A skipped test says what brings it."""

import importlib.util
import shutil

import pytest


def program(name: str, package: str | None = None) -> pytest.MarkDecorator:
    """Skips where no program `name` is on the PATH. Debian's `package` brings it; its name is the program's if None."""
    return pytest.mark.skipif(not shutil.which(name), reason=f"{name} is missing: apt install {package or name}")


def module(name: str, command: str) -> pytest.MarkDecorator:
    """Skips where Python finds no module `name`. `command` installs it."""
    return pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is missing: {command}")
