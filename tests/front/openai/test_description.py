"""The API's own OpenAPI description is held against it (`make fuzz-api` for longer)."""

from __future__ import annotations

from pathlib import Path

import httpx2

from perf.checks.fuzz_api import hold_against_description
from tests.support.front import KEYS


def test_answers_are_as_described(api: str, tmp_path: Path) -> None:
    done = hold_against_description(api, KEYS["ann"], cases=5, seed=0, folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "11 selected / 11 total" in done.stdout


def test_the_description_tells_what_is_served(api: str) -> None:
    described = httpx2.get(f"{api}/openapi.json").json()
    assert described["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] == [
        "test-model",
        "another-name",
    ]
    bodies = {
        path: operations["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for path, operations in described["paths"].items()
        if path in ("/v1/chat/completions", "/v1/summaries")
    }
    assert [name.rpartition("/")[2] for name in bodies.values()] == ["ChatRequest", "SummaryRequest"]
