"""The commands `qwen3-vl-api` and `qwen3-vl-web`, which `qwen3-vl-front` has replaced. They work for one release.

Each serves its own face only, as before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import typer

from .command import app

# Where both faces have a bound, the page's has another name now.
_PAGE_NAMES = {
    name: name.replace("--", "--page-", 1)
    for name in ("--max-body-mib", "--requests-per-minute", "--concurrent-requests")
}


def api() -> None:
    """The console script `qwen3-vl-api`."""
    _serve("qwen3-vl-api", ["--no-page"], {})


def web() -> None:
    """The console script `qwen3-vl-web`."""
    _serve("qwen3-vl-web", ["--no-api", "--page", "--port", "7860"], _PAGE_NAMES)


def renamed(arguments: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The arguments with the options' new names, `--option VALUE` and `--option=VALUE`."""
    found = [argument.partition("=") for argument in arguments]
    return [names.get(name, name) + equals + value for name, equals, value in found]


def _serve(name: str, first: Sequence[str], names: Mapping[str, str]) -> None:
    arguments = [*first, *renamed(sys.argv[1:], names)]
    typer.echo(f"{name} is replaced by: qwen3-vl-front {' '.join(first)}; {name} goes with the next release", err=True)
    app(arguments, prog_name=name)
