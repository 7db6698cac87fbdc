"""SECURITY.md says what is so: the tests that it names are there, and the bounds are the settings' defaults."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest
import typer.main

from build.serve.gate.settings import GateSettings
from qwen3_vl_client.front.command import app as front

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()


def options(app: typer.Typer) -> dict[str, str]:
    """Option -> default of a command; where it has none, its help says in brackets what is taken instead."""
    return {parameter.opts[0]: _default(parameter) for parameter in typer.main.get_command(app).params}


def _default(parameter: click.Parameter) -> str:
    if parameter.default is None and (told := re.search(r"\[([^\]]+)\]$", getattr(parameter, "help", None) or "")):
        return told[1]
    return str(parameter.default)


# What is taken where a stage's parameter is empty.
WITHOUT = {
    "max_bytes_in_flight": "a quarter of the memory",
    "max_decoding_bytes": "a quarter of the memory",
    "max_workers": "two for each core, 4 at least",
}


def parameters(stage: str) -> dict[str, str]:
    """Name -> value in a stage's configuration; an empty one says what is taken instead."""
    text = (ROOT / "model_repository" / stage / "config.pbtxt").read_text()
    found = re.findall(r'parameters \{ key: "(\w+)" value: \{ string_value: "([^"]*)" \} \}', text)
    return {name: value or WITHOUT.get(name, "") for name, value in found}


def bounds(title: str) -> dict[str, str]:
    """Setting -> default in the table below a title."""
    table = PAGE.partition(f"**{title}**")[2].partition("\n\n**")[0].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([\w-]+)`[^|]*\| ([^|]+) \|", table, re.MULTILINE))


GATE = {field.name: str(field.default) for field in dataclasses.fields(GateSettings)}


@pytest.mark.parametrize(
    ("title", "defaults"),
    [
        ("API and page", options(front)),
        ("The gate", GATE),
        ("Stage 1", parameters("video_preprocess")),
        ("Stage 3", parameters("decoder")),
    ],
)
def test_bounds_are_the_defaults(title: str, defaults: dict[str, str]) -> None:
    told = bounds(title)
    assert told
    assert told == {name: defaults.get(name) for name in told}


def test_no_bound_is_left_out() -> None:
    wanted = re.compile(
        r"(--)?(page-)?(max|upload|worker)[_-]|.*[_-](seconds|per[_-]minute|requests)$|(memory|cache)_bytes$"
    )
    assert {name for name in options(front) if wanted.match(name)} <= set(bounds("API and page"))
    assert {name for name in GATE if wanted.match(name)} <= set(bounds("The gate"))
    # How large a batch and how often a stage speaks bound nothing that a client sends.
    within = {"heartbeat_seconds", "max_step_tokens", "max_batch"}
    for title, stage in (("Stage 1", "video_preprocess"), ("Stage 3", "decoder")):
        assert {name for name in parameters(stage) if wanted.match(name)} - within <= set(bounds(title))


@pytest.mark.parametrize("promise", sorted(set(re.findall(r"`(tests/[\w/.]+::\w+)`", PAGE))))
def test_promises_are_held_by_tests_that_exist(promise: str) -> None:
    file, _, name = promise.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_commands_and_links_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)", PAGE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / link).exists(), link
    assert "(SECURITY.md" in (ROOT / "README.md").read_text()
