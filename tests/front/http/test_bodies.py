"""Bodies: read of those who may ask, within bounds, counted before they are parsed, parsed without stopping others."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, ValidationError

from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.http.bodies import HeldBodies, InvalidBodyError, read_json
from qwen3_vl_client.front.http.refusals import RefusedError
from qwen3_vl_client.front.openai.chat_request import ChatRequest
from qwen3_vl_client.front.settings import Settings
from tests.support.front import connected, head, hears, served

MIB = 2**20
JSON = {"content-type": "application/json"}
ANN = {"authorization": "Bearer key-of-ann", **JSON}
CHAT = {"model": "qwen3-vl", "messages": [{"role": "user", "content": "Hello"}]}
ASK = {"turns": [{"role": "user", "text": "Hello"}]}
ROUTES = ["/v1/chat/completions", "/v1/summaries"]


@pytest.mark.parametrize("path", [*ROUTES, "/v1/files"])
@pytest.mark.parametrize("key", ["", "Authorization: Bearer wrong\r\n"])
def test_without_a_key_no_body_is_waited_for(api: str, path: str, key: str) -> None:
    with connected(api, seconds=20) as connection:
        lines = head("POST", path, content_type="application/json", content_length=str(200 * MIB))
        connection.sendall(lines[:-2] + key.encode() + b"\r\n")
        assert hears(connection, b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_announced_as_too_large_is_not_waited_for(api: str, path: str) -> None:
    with connected(api, seconds=20) as connection:
        key = {"authorization": "Bearer key-of-ann", "content_type": "application/json"}
        connection.sendall(head("POST", path, content_length=str(257 * MIB), **key))
        assert hears(connection, b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/ask", "/summarize"])
@pytest.mark.parametrize("announced", [True, False])
def test_the_page_takes_no_large_body(page: str, path: str, announced: bool) -> None:
    content = json.dumps({"turns": [{"role": "user", "text": "x" * 5 * MIB}]}).encode()
    response = httpx2.post(f"{page}{path}", content=content if announced else iter([content]), headers=JSON, timeout=60)
    assert response.status_code == 413
    assert "more than 4,194,304 bytes" in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", [b"[],", b"{},", b'"",', b'{"a":1},', b"[[[[],"])
def test_too_many_values_are_refused_before_they_are_parsed(api: str, kind: bytes) -> None:
    with connected(api, seconds=30) as connection:
        lines = head("POST", "/v1/chat/completions", content_length=str(230 * MIB), **_underscored(ANN))
        connection.sendall(lines + b'{"messages":[' + kind * (2 * MIB // len(kind)))
        assert hears(connection, b"more than 50,000 values")


def _underscored(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in headers.items()}


def test_others_are_served_while_bodies_are_parsed(api: str) -> None:
    """Bodies of as many wrong values as are let through."""
    body = b'{"messages":[' + b"[]," * 24_000 + b"[]]}"

    def send(_: int) -> int:
        return httpx2.post(f"{api}/v1/chat/completions", content=body, headers=ANN, timeout=120).status_code

    with ThreadPoolExecutor(4) as threads:
        sending = threads.map(send, range(12))
        slowest = 0.0
        for _ in range(50):
            began = time.monotonic()
            assert httpx2.get(f"{api}/v1/models", headers=ANN, timeout=60).is_success
            slowest = max(slowest, time.monotonic() - began)
        assert set(sending) == {400}
    assert slowest < 10


def test_a_list_of_frames_has_as_many_commas_as_frames(api: str) -> None:
    url = "data:video/jpeg;base64," + ",".join(["/9j/QUJD"] * 65_000)
    content = [{"type": "video_url", "video_url": {"url": url}}]
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": content}]})
    # Some programs write a slash like this.
    for written in (body, body.replace("/", "\\/")):
        told = httpx2.post(f"{api}/v1/chat/completions", content=written.encode(), headers=ANN, timeout=60).text
        assert "has a frame that is no JPEG file" in told


WRONG: list[dict[str, Any]] = [
    {"messages": [1] * 40_000},
    {"messages": [{"role": "x"}] * 4000},
    {"messages": [{"role": "user", "content": [1] * 4000}]},
    {"messages": [{"role": "system", "content": [1] * 4000}]},
    {"stop_token_ids": ["a"] * 1000},
    {"structured_outputs": {"choice": [1] * 4000}},
    {"media_io_kwargs": {"video": {"frames_indices": [-1] * 4000}}},
    {"modalities": ["x"] * 16},
    {"mm_processor_kwargs": {"fps": ["x"] * 4000}},
    {"stop": [1] * 64},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:40])
def test_the_first_wrong_value_of_a_list_is_the_only_one_that_is_told(wrong: dict[str, Any]) -> None:
    """To tell of 199,000 stopped the others for seconds."""
    with pytest.raises(ValidationError) as invalid:
        ChatRequest.model_validate({**CHAT, **wrong})
    # Where something else than a list is accepted too, that is told as well.
    assert invalid.value.error_count() <= 2


@pytest.mark.parametrize(
    ("field", "most"),
    [("messages", 4096), ("stop", 64), ("stop_token_ids", 1024), ("modalities", 16)],
)
def test_lists_have_a_bound(api: str, field: str, most: int) -> None:
    value = {"messages": CHAT["messages"][0], "stop": "a", "stop_token_ids": 1, "modalities": "text"}[field]
    url = f"{api}/v1/chat/completions"
    told = httpx2.post(url, json={**CHAT, field: [value] * (most + 1)}, headers=ANN, timeout=60)
    assert told.status_code == 400
    assert f"at most {most} items" in told.text
    assert httpx2.post(url, json={**CHAT, field: [value] * most}, headers=ANN, timeout=60).status_code == 503


def test_objects_have_a_bound(api: str, page: str) -> None:
    many = {f"key{number}": 1 for number in range(1025)}
    for url, body in ((f"{api}/v1/chat/completions", {**CHAT, "metadata": many}), (f"{page}/ask", many)):
        told = httpx2.post(url, json=body, headers=ANN, timeout=60)
        assert told.status_code == 400
        assert "has 1,025 keys; at most 1,024 are accepted" in told.text


def test_what_was_sent_is_told_shortened(api: str, page: str) -> None:
    long = "x" * MIB
    for url, body in (
        (f"{api}/v1/chat/completions", {**CHAT, "model": long}),
        (f"{api}/v1/chat/completions", {**CHAT, long: 1}),
        (f"{api}/v1/chat/completions", {**CHAT, "messages": [{"role": long}]}),
        (f"{api}/v1/summaries", {"model": long, "video": "clip.mp4"}),
        (f"{page}/ask", {**ASK, long: 1}),
        (f"{page}/ask", {**ASK, "files": [long]}),
        (f"{page}/summarize", {"file": long}),
    ):
        told = httpx2.post(url, json=body, headers=ANN, timeout=60)
        assert told.status_code == 400
        assert len(told.content) < 10_000
    assert len(httpx2.get(f"{api}/v1/models/{long[:50_000]}", headers=ANN, timeout=60).content) < 10_000


def test_who_sends_a_body_holds_a_place(settings: Settings, page_settings: Settings) -> None:
    kind = {"content_type": "application/json", "content_length": "60000"}
    with served(create_app(replace(settings, concurrent_requests=1))) as url:
        for path in ROUTES:
            body = CHAT if "chat" in path else {"model": "qwen3-vl", "video": "clip.mp4"}
            with connected(url) as connection:
                connection.sendall(head("POST", path, authorization="Bearer key-of-ann", **kind) + b"{")
                # It came first: otherwise it might be refused itself.
                time.sleep(0.5)
                until(lambda path=path, body=body: httpx2.post(f"{url}{path}", json=body, headers=ANN), 429)
            until(lambda path=path, body=body: httpx2.post(f"{url}{path}", json=body, headers=ANN), 503, 404)
    with (
        served(create_app(replace(page_settings, page_concurrent_requests=1))) as url,
        httpx2.Client(base_url=url) as ann,
    ):
        ann.get("/files")
        cookie = "; ".join(f"{name}={value}" for name, value in ann.cookies.items())
        for path in ("/ask", "/summarize"):
            with connected(url) as connection:
                connection.sendall(head("POST", path, cookie=cookie, **kind) + b"{")
                time.sleep(0.5)
                until(lambda path=path: ann.post(path, json=ASK), 429)
            until(lambda path=path: ann.post(path, json=ASK), 200, 400)


def until(ask: Callable[[], httpx2.Response], *statuses: int) -> None:
    """Within 20 s."""
    for _ in range(200):
        if ask().status_code in statuses:
            return
        time.sleep(0.1)
    pytest.fail(f"none of {statuses} came")


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "qwen3-vl", "messages": [{"role": "user", "content": "\\ud800"}]}',
        '{"model": "qwen3-vl", "messages": [{"role": "user", "content": "Hello"}], "\\udfff": 1}',
        '{"model": "qwen3-vl", "messages": [{"role": "user", "content": "Hello"}], "metadata": {"a": ["\\ud83d "]}}',
        '{"model": "\\ud800", "messages": [{"role": "user", "content": "Hello"}]}',
        '{"model": "qwen3-vl", "video": "\\ud800"}',
        '{"turns": [{"role": "user", "text": "\\udc00"}]}',
        '{"file": "\\ud800"}',
        '{"video_options": {"start": NaN}}',
        '{"temperature": Infinity}',
        '{"temperature": -Infinity}',
        '{"metadata": {"a": 1e999}}',
        '{"video_options": {"end": -1e400}}',
        '{"seed": ' + "9" * 5000 + "}",
        "[" * 300 + "]" * 300,
        "[" * 40_000 + "]" * 40_000,
        '{"a":' * 300 + "1" + "}" * 300,
        "",
        "{",
        '{"a": 1} x',
        '"\xff"',
    ],
    ids=lambda text: text[-60:],
)
@pytest.mark.parametrize("path", [*ROUTES, "/ask", "/summarize"])
def test_what_is_no_json_is_told_so(api: str, page: str, path: str, text: str) -> None:
    url = f"{api if path in ROUTES else page}{path}"
    response = httpx2.post(url, content=text.encode("latin-1"), headers=ANN, timeout=60)
    assert response.status_code == 400, response.text
    assert "the body is not JSON: " in response.text


def test_another_type_is_refused(api: str, page: str) -> None:
    for url in (f"{api}/v1/chat/completions", f"{page}/ask"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            headers = {**ANN, "content-type": kind}
            response = httpx2.post(url, content=json.dumps(CHAT).encode(), headers=headers)
            assert response.status_code == 400
            assert "application/json is accepted" in response.text


class Anything(BaseModel):
    text: str


async def pieces_of(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read(content: bytes, bodies: HeldBodies, owner: str = "ann", **bounds: int) -> Anything:
    with bodies.holding(owner) as holding:
        limits = {"max_bytes": 64 * MIB, "max_values": 1000, **bounds}
        return await read_json(pieces_of(content), JSON, Anything, holding=holding, **limits)


def test_all_bodies_together_have_a_bound() -> None:
    bodies = HeldBodies(4 * MIB)
    long, short = (json.dumps({"text": "x" * size}).encode() for size in (2 * MIB, 1000))
    with bodies.holding("ann") as ann, bodies.holding("bob") as bob:
        ann.add(MIB)
        bob.add(2 * MIB)
        with pytest.raises(RefusedError, match="4,194,304 bytes") as refused:
            asyncio.run(read(long, bodies))
        assert refused.value.status == 503
        assert refused.value.headers["retry-after"]
        # One owner holds half of it at most, and short ones always find room.
        with pytest.raises(RefusedError):
            bob.add(MIB)
        assert asyncio.run(read(short, bodies, "bob")).text
    assert asyncio.run(read(json.dumps({"text": "x" * MIB}).encode(), bodies)).text


def test_bodies_that_are_refused_are_held_no_longer(settings: Settings) -> None:
    small = replace(settings, max_held_bytes=4 * MIB)
    with served(create_app(small)) as url:
        for size in (MIB, 3 * MIB, MIB, 3 * MIB, MIB):
            body = json.dumps({**CHAT, "messages": [{"role": "user", "content": 5}], "user": "x" * size}).encode()
            response = httpx2.post(f"{url}/v1/chat/completions", content=body, headers=ANN, timeout=60)
            assert response.status_code == (400 if size == MIB else 503)
            assert ("retry-after" in response.headers) == (size != MIB)


def test_the_errors_of_a_body_name_their_place() -> None:
    with pytest.raises(InvalidBodyError) as invalid:
        asyncio.run(read(b'{"text": 5}', HeldBodies(MIB)))
    assert invalid.value.first["loc"] == ("text",)


NUMBERS = [0, -1, 1e-308, 5e-324, 1e308, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, True, math.pi]


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "top_p", "fps", "context_length"])
def test_no_number_breaks_the_page(page: str, name: str) -> None:
    with httpx2.Client(base_url=page, headers=JSON, timeout=60) as http:
        for number in NUMBERS:
            response = http.post("/ask", json={**ASK, "options": {name: number}})
            assert response.status_code == 400 or '"kind": "error", "code": "unavailable"' in response.text, number
    for value in ("nan", "inf", "-inf", "1e400"):
        assert httpx2.get(f"{page}/files/file-1/picture", params={"at": value}).status_code in (400, 404)


def test_owners_of_the_page_have_their_limits(page_settings: Settings) -> None:
    few = replace(page_settings, page_requests_per_minute=2)
    with served(create_app(few)) as url, httpx2.Client(base_url=url, timeout=60) as ann:
        assert [ann.post("/ask", json=ASK).status_code for _ in range(3)] == [200, 200, 429]
        with httpx2.Client(base_url=url, timeout=60) as bob:
            assert bob.post("/ask", json=ASK).status_code == 200
