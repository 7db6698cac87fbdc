"""Chats about videos that the context has no room for: they are read part by part, then the question is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.front import asking, wait_until
from tests.support.media import make_video

# The film wants about 1,000 tokens.
SMALL = {"context_length": 800, "fps": 8}
PARTS = {
    "type": "object",
    "properties": {"parts": {"type": "boolean"}},
    "required": ["parts"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", autouse=True)
def film(media_root: Path) -> Iterator[None]:
    """And notes that are short, as a random model would fill all the room that they have."""
    make_video(media_root / "film.mp4", width=160, height=96, frames=192, fps=8, seed=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qwen3_vl_client.summaries.summarizing._ANSWER_TOKENS", 40)
        yield


@pytest.fixture
def http(api: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=api, headers={"authorization": "Bearer key-of-ann"}, timeout=120) as client:
        yield client


def film_chat(question: str = "What happens?", *turns: str, **fields: Any) -> dict[str, Any]:
    video = {"type": "video_url", "video_url": {"url": "film.mp4"}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [video, {"type": "text", "text": question}]}]
    messages += [{"role": role, "content": turn} for role, turn in zip(("assistant", "user"), turns, strict=False)]
    return {"model": "test-model", "messages": messages, "max_tokens": 8, "temperature": 0, **fields}


def ask(http: httpx2.Client, body: dict[str, Any]) -> dict[str, Any]:
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def video_tokens(answer: dict[str, Any]) -> int:
    return answer["usage"]["prompt_tokens_details"]["video_tokens"]


def streamed(http: httpx2.Client, body: dict[str, Any]) -> tuple[list[str], str]:
    """The comments, and the text."""
    with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        lines = list(response.iter_lines())
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    return [line for line in lines if line.startswith(": ")], text


def test_what_fits_is_shown(http: httpx2.Client) -> None:
    assert video_tokens(ask(http, film_chat())) > 0


def test_what_does_not_fit_is_read_part_by_part(http: httpx2.Client) -> None:
    body = film_chat(video_options=SMALL)
    comments, text = streamed(http, body)
    parts = sum(comment.startswith(": part ") for comment in comments)
    assert parts >= 2
    assert comments[0] == f": a long video is read in {parts} parts, 0 answers are known"
    assert any("accounts are merged" in comment for comment in comments)
    again = ask(http, body)
    assert again["choices"][0]["message"]["content"] == text
    assert video_tokens(again) == 0
    assert 100 < again["usage"]["prompt_tokens"] <= 800


def test_a_further_question_finds_the_notes(http: httpx2.Client) -> None:
    first, _ = streamed(http, film_chat("What is red?", video_options=SMALL))
    then, text = streamed(http, film_chat("What is red?", "A square.", "When?", video_options=SMALL))
    assert first[0].endswith(", 0 answers are known")
    assert not then[0].endswith(", 0 answers are known")
    assert text


def test_the_answer_has_the_form_that_was_asked_for(http: httpx2.Client) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "parts", "schema": PARTS}}
    answer = ask(http, film_chat(video_options=SMALL, response_format=form, max_tokens=200))
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["parts"], bool)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"long_video": "always"}, False),
        ({"long_video": "never", "video_options": SMALL}, True),
        ({"video_options": {**SMALL, "start": 2.0}}, True),
    ],
)
def test_who_asks_decides(http: httpx2.Client, fields: dict[str, Any], shown: bool) -> None:
    assert (video_tokens(ask(http, film_chat(**fields))) > 0) == shown


@pytest.mark.parametrize("stream", [True, False])
def test_a_stretch_of_a_video_is_not_read_in_parts(http: httpx2.Client, stream: bool) -> None:
    body = film_chat(long_video="always", video_options={"start": 1.0}, stream=stream)
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "start"


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_while_parts_are_read_ends_them(
    api: str, sessions: Callable[[], int], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("qwen3_vl_client.summaries.summarizing._ANSWER_TOKENS", 4000)
    with asking(api, film_chat(f"Stream: {stream}", video_options=SMALL, stream=stream)):
        wait_until(lambda: sessions() > 1, 10)
    wait_until(lambda: sessions() == 0, 3)
