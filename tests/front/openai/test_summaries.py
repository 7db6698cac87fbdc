"""Summaries through the API: as the library makes them, with progress, resumed, and ended with their client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from qwen3_vl_client.summaries import SummaryOptions
from tests.support.front import wait_until
from tests.support.media import make_video

BODY = {"model": "test-model", "video": "long.mp4", "part_seconds": 4, "max_tokens": 60}


@pytest.fixture(scope="module", autouse=True)
def long_video(media_root: Path) -> None:
    make_video(media_root / "long.mp4", width=96, height=64, frames=96, fps=8, seed=4)


@pytest.fixture
def http(api: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=api, headers={"authorization": "Bearer key-of-ann"}, timeout=120) as client:
        yield client


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def test_a_summary_and_its_progress(http: httpx2.Client) -> None:
    whole = http.post("/v1/summaries", json=BODY)
    assert whole.status_code == 200, whole.text
    with http.stream("POST", "/v1/summaries", json={**BODY, "stream": True}) as streaming:
        told = list(events(streaming.iter_lines()))
    kinds = [event["object"] for event in told]
    parts = told[0]["parts"]
    assert len(parts) >= 3
    assert kinds == [
        "video.summary.cut",
        *["video.summary.part"] * len(parts),
        "video.summary.merged",
        "video.summary",
    ]
    summary = told[-1]
    assert [summary[key] for key in ("title", "text", "chapters")] == [
        whole.json()[key] for key in ("title", "text", "chapters")
    ]
    assert summary["seconds"] == pytest.approx(12, abs=0.2)
    ends = [0.0]
    for chapter in summary["chapters"]:
        assert ends[-1] <= chapter["start"] <= chapter["end"] <= summary["seconds"]
        ends.append(chapter["end"])


def test_an_interrupted_summary_goes_on_where_it_was(http: httpx2.Client, sessions: Callable[[], int]) -> None:
    body = {**BODY, "stream": True, "about": "colours"}
    with http.stream("POST", "/v1/summaries", json=body) as streaming:
        lines = streaming.iter_lines()
        told = events(lines)
        assert next(told)["resumed"] == 0
        next(told)
    wait_until(lambda: sessions() == 0, 3)
    for owner, resumed in (("bob", False), ("ann", True)):
        headers = {"authorization": f"Bearer key-of-{owner}"}
        with http.stream("POST", "/v1/summaries", json=body, headers=headers) as streaming:
            told_again = list(events(streaming.iter_lines()))
        assert bool(told_again[0]["resumed"]) == resumed
        assert told_again[-1]["object"] == "video.summary"


def test_all_summaries_of_one_owner_share_the_parts_in_flight(http: httpx2.Client, sessions: Callable[[], int]) -> None:
    most = 0

    def summarize(about: str) -> int:
        body = {**BODY, "about": about, "part_seconds": 2, "max_tokens": 200}
        return http.post("/v1/summaries", json=body).status_code

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(summarize, about) for about in ("red", "green", "blue")]
        while not all(each.done() for each in asked):
            most = max(most, sessions())
    assert [each.result() for each in asked] == [200] * 3
    # Each alone would have as many.
    assert 4 < most <= SummaryOptions.in_flight


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"model": "gpt-9"}, 404, "not served here"),
        ({"video": "nothing.mp4"}, 404, "no such file"),
        ({"video": "http://127.0.0.1/"}, 400, "fetches from nowhere"),
        ({"video": "clips/picture.png"}, 400, "not a readable video"),
        ({"part_seconds": 0}, 400, "part_seconds"),
        ({"video_options": {"start": 1.0}}, 400, "whole video"),
        ({"in_flight": 3}, 400, "in_flight is not a field"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_wrong_is_refused(
    http: httpx2.Client, change: dict[str, Any], status: int, reason: str, stream: bool
) -> None:
    response = http.post("/v1/summaries", json={**BODY, **change, "stream": stream})
    assert response.status_code == status
    assert reason in response.json()["error"]["message"]
