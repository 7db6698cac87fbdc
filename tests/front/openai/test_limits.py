"""Who may ask, how often, from which page; and what operators see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from qwen3_vl_client.front.http import rates
from qwen3_vl_client.front.http.rates import RequestLimits
from qwen3_vl_client.front.http.refusals import RefusedError
from qwen3_vl_client.front.keys import ApiKeys, read_keys
from qwen3_vl_client.front.settings import Settings
from tests.support.front import running

HELLO = {"model": "test-model", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest.fixture
def http(api: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=api, timeout=60) as client:
        yield client


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic key-of-ann"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/v1/files"), ("POST", "/v1/files")],
)
def test_without_a_key_there_is_nothing(http: httpx2.Client, method: str, path: str, header: dict[str, str]) -> None:
    response = http.request(method, path, headers=header, json=HELLO if "chat" in path else None)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"] == {
        "message": "the API key is missing or unknown; Authorization: Bearer KEY is accepted",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }


def test_keys() -> None:
    keys = ApiKeys({"ann": "a", "bob": "bb"})
    assert [keys.owner(key) for key in ("a", "bb", "b", "", None)] == ["ann", "bob", None, None, None]
    assert ApiKeys({}).owner(None) == ApiKeys({}).owner("any") == "anonymous"


def test_a_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nann key-1\n\nbob key-2 # the other one\n")
    assert read_keys(path) == {"ann": "key-1", "bob": "key-2"}
    for wrong in ("ann", "ann key more", "ann key\nann key-2", "# nothing"):
        path.write_text(wrong)
        with pytest.raises(ValueError):
            read_keys(path)


def test_settings_say_what_is_wrong(settings: Settings, tmp_path: Path) -> None:
    for change, message in (
        ({"media_root": tmp_path / "nothing"}, "is not a folder"),
        ({"api_keys": {"ann": "same", "bob": "same"}}, "same API key"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0"),
        ({"models": ()}, "no model name"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(settings, **change)


def test_a_bucket_empties_and_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(rates.time, "monotonic", lambda: now)
    allowed = RequestLimits(requests_per_minute=6, concurrent_requests=1)
    for _ in range(6):
        allowed.count("ann")
    with pytest.raises(RefusedError, match="more than 6 requests per minute") as refused:
        allowed.count("ann")
    assert refused.value.headers == {"retry-after": "10"}
    allowed.count("bob")
    now = 9.0
    with pytest.raises(RefusedError, match="in 1 s"):
        allowed.count("ann")
    now = 10.0
    allowed.count("ann")
    with pytest.raises(RefusedError):
        allowed.count("ann")


def test_too_many_requests(settings: Settings) -> None:
    bounded = replace(settings, requests_per_minute=2, concurrent_requests=1)
    ann, bob = ({"authorization": f"Bearer key-of-{name}"} for name in ("ann", "bob"))
    with running(bounded) as url, httpx2.Client(base_url=url, timeout=60) as http:
        responses = [http.post("/v1/chat/completions", json=HELLO, headers=ann) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert responses[2].headers["retry-after"] == "30"
        assert responses[2].json()["error"]["type"] == "rate_limit_error"
        assert http.get("/v1/models", headers=ann).status_code == 200
        long = {**HELLO, "max_tokens": 4000, "ignore_eos": True, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=long, headers=bob) as streaming:
            lines = streaming.iter_lines()
            next(lines)
            busy = http.post("/v1/chat/completions", json=HELLO, headers=bob)
            assert (busy.status_code, busy.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")


def test_pages_that_may_call(http: httpx2.Client) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    allowed = http.options("/v1/chat/completions", headers={"origin": "https://page.example", **asks})
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-credentials" not in allowed.headers
    refused = http.options("/v1/chat/completions", headers={"origin": "https://evil.example", **asks})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


def test_health_and_metrics(http: httpx2.Client) -> None:
    assert http.get("/health").json() == {"status": "ok", "sessions": 0, "waiting": 0}
    assert http.post("/v1/chat/completions", json=HELLO, headers={"authorization": "Bearer key-of-ann"}).is_success
    http.get("/no/such/page")
    page = http.get("/metrics").text
    for line in (
        'qwen3_vl_api_requests_total{route="/v1/chat/completions",status="200"}',
        'qwen3_vl_api_requests_total{route="none",status="404"}',
        'qwen3_vl_api_tokens_total{kind="completion"}',
        "qwen3_vl_api_first_text_seconds_count",
    ):
        assert line in page


def test_without_a_server_the_api_says_so(settings: Settings) -> None:
    lost = replace(settings, url="127.0.0.1:9", api_keys={})
    with running(lost) as url, httpx2.Client(base_url=url, timeout=60) as http:
        for response in (http.get("/health"), http.post("/v1/chat/completions", json=HELLO)):
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert response.json()["error"]["code"] == "unavailable"


def test_unknown_paths_and_methods(http: httpx2.Client) -> None:
    missing, wrong = http.get("/v1/nothing"), http.put("/v1/files")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
