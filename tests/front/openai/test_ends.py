"""A client that goes away ends its generation within a second; a server that goes away ends the request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.support.front import asking, wait_until

LONG = {
    "model": "test-model",
    "messages": [{"role": "user", "content": "Go on and on."}],
    "max_tokens": 8000,
    "temperature": 0,
    "ignore_eos": True,
}
VIDEO = {
    **LONG,
    "messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "clips/clip.mp4"}}]}],
    "max_tokens": 7000,
}


@pytest.mark.parametrize("body", [LONG, VIDEO], ids=["text", "video"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_goes_away_is_forgotten(
    api: str, sessions: Callable[[], int], body: dict[str, Any], streamed: bool
) -> None:
    assert sessions() == 0
    with asking(api, {**body, "stream": streamed}):
        wait_until(lambda: sessions() == 1, 10)
    gone = time.monotonic()
    wait_until(lambda: sessions() == 0, 5)
    # The bar is a second; a loaded machine may take longer to look.
    assert time.monotonic() - gone < 3


def test_a_stream_that_is_closed_in_the_middle(api: str, sessions: Callable[[], int]) -> None:
    with OpenAI(base_url=f"{api}/v1", api_key="key-of-ann", max_retries=0) as client:
        body = {**LONG, "extra_body": {"ignore_eos": True}}
        del body["ignore_eos"]
        stream = client.chat.completions.create(**body, stream=True)
        pieces = [next(stream) for _ in range(5)]
        assert pieces[-1].choices[0].delta.content is not None
        stream.close()
        wait_until(lambda: sessions() == 0, 3)


def test_a_client_that_loses_patience(api: str, sessions: Callable[[], int]) -> None:
    client = OpenAI(base_url=f"{api}/v1", api_key="key-of-ann", max_retries=0, timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(
            model="test-model", messages=LONG["messages"], max_tokens=8000, extra_body={"ignore_eos": True}
        )
    wait_until(lambda: sessions() == 0, 3)


def test_requests_that_ended_leave_their_places(api: str) -> None:
    """The running requests are counted until their clients have gone, and no longer."""
    with httpx2.Client(base_url=api) as http:
        page = http.get("/metrics").text
    assert "qwen3_vl_api_requests_running 1.0" in page, "only this one runs"
    assert 'route="/v1/chat/completions",status="499"' in page
