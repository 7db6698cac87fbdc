"""What curl sends, and vLLM's clients: bodies as they stand in its documentation, but for the media's addresses."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

import qwen3_vl_client
from qwen3_vl_client.front.openai.video_kwargs import VideoOptions
from tests.support import needs

CLIP = "clips/clip.mp4"
GREEDY = {"temperature": 0, "max_tokens": 4, "ignore_eos": True}


@pytest.fixture(scope="module")
def http(api: str) -> httpx2.Client:
    return httpx2.Client(base_url=api, headers={"authorization": "Bearer key-of-ann"}, timeout=60)


def ask(http: httpx2.Client, **body: Any) -> dict[str, Any]:
    response = http.post("/v1/chat/completions", json={"model": "test-model", **body})
    assert response.status_code == 200, response.text
    return response.json()


def about(url: str, **fields: Any) -> list[dict[str, Any]]:
    part = {"type": "video_url", "video_url": {"url": url}, **fields}
    return [{"role": "user", "content": [{"type": "text", "text": "What's in this video?"}, part]}]


def frames(http: httpx2.Client, **body: Any) -> int:
    """Visual tokens grow with the frames that are looked at."""
    usage = ask(http, messages=about(CLIP), **GREEDY, **body)["usage"]
    return usage["prompt_tokens_details"]["video_tokens"]


def test_vllm_video_by_url_with_uuid(http: httpx2.Client) -> None:
    answer = ask(http, messages=about(CLIP, uuid=CLIP), max_completion_tokens=64)
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_vllm_video_as_base64(http: httpx2.Client, clip: bytes) -> None:
    url = f"data:video/mp4;base64,{base64.b64encode(clip).decode()}"
    assert ask(http, messages=about(url), max_completion_tokens=64)["choices"][0]["message"]["content"]


def test_vllm_frames_per_second(http: httpx2.Client) -> None:
    # The model card's body: with `extra_body`, the openai package puts these fields beside the others.
    body = {"top_k": 20, "top_p": 0.95, "presence_penalty": 1.5}
    sparse, dense = (
        frames(http, **body, mm_processor_kwargs={"fps": fps, "do_sample_frames": True}) for fps in (1.0, 8)
    )
    assert 0 < sparse < dense


def test_vllm_media_io_kwargs(http: httpx2.Client) -> None:
    few, many = (frames(http, media_io_kwargs={"video": {"num_frames": count}}) for count in (4, 16))
    assert (few, many) == (frames(http, video_options={"min_frames": 4, "max_frames": 4}), 4 * few)
    processed = {"do_sample_frames": False}
    assert frames(http, media_io_kwargs={"video": {"fps": 8}}, mm_processor_kwargs=processed) > few
    assert frames(http, media_io_kwargs={"video": {"num_frames": -1}}, mm_processor_kwargs={"num_frames": 4}) == few


def test_vllm_pixels(http: httpx2.Client) -> None:
    whole = frames(http)
    assert frames(http, mm_processor_kwargs={"max_pixels": 32 * 64, "min_pixels": 784}) < whole
    assert frames(http, mm_processor_kwargs={"size": {"longest_edge": 16 * 32 * 32, "shortest_edge": 4096}}) < whole


def test_video_options_win(http: httpx2.Client) -> None:
    few = frames(http, video_options={"max_frames": 4, "min_frames": 4}, mm_processor_kwargs={"num_frames": 16})
    assert few == frames(http, mm_processor_kwargs={"num_frames": 4})


def test_vllm_structured_outputs(http: httpx2.Client) -> None:
    def answer(**wanted: Any) -> str:
        hello = [{"role": "user", "content": "Hello"}]
        body = {"structured_outputs": wanted, "max_tokens": 40, "temperature": 0}
        return ask(http, messages=hello, **body)["choices"][0]["message"]["content"]

    assert answer(choice=["a+b", "c (d)"]) in ("a+b", "c (d)")
    assert re.fullmatch("[0-9]{3}", answer(regex="[0-9]{3}"))
    assert answer(json={"type": "string", "enum": ["x"]}) == '"x"'
    assert answer(json_object=True).startswith("{")


def test_subtitles(http: httpx2.Client) -> None:
    lines = base64.b64encode(b"1\n00:00:00,500 --> 00:00:01,000\nMind the gap.\n").decode()
    stored = http.post("/v1/files", files={"file": ("clip.srt", base64.b64decode(lines))}).json()["id"]

    def prompt_tokens(url: str | None) -> int:
        part = {"type": "video_url", "video_url": {"url": CLIP, "subtitles": url}}
        messages = [{"role": "user", "content": [part]}]
        return ask(http, messages=messages, **GREEDY)["usage"]["prompt_tokens"]

    silent = prompt_tokens(None)
    spoken = {prompt_tokens(url) for url in (stored, f"data:application/x-subrip;base64,{lines}")}
    assert len(spoken) == 1
    assert min(spoken) > silent
    http.delete(f"/v1/files/{stored}")


def test_the_api_knows_the_library_s_video_options() -> None:
    assert {field.name for field in dataclasses.fields(qwen3_vl_client.VideoOptions)} <= set(VideoOptions.model_fields)


def test_a_message_of_every_role(http: httpx2.Client) -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "name": "ann", "content": "Hello"},
        {"role": "assistant", "content": "Hello.", "refusal": None, "tool_calls": [], "audio": None},
        {"role": "user", "content": "And now?"},
    ]
    assert ask(http, messages=messages, **GREEDY)["usage"]["completion_tokens"] == 4


def test_fields_that_change_no_answer_are_ignored(http: httpx2.Client) -> None:
    ignored = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "n": 1, "tools": []}
    assert ask(http, messages=[{"role": "user", "content": "Hello"}], **GREEDY, **ignored)


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"mm_processor_kwargs": {"frames": 3}}, "mm_processor_kwargs.frames"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "audio_url"}]}]}, "messages[0].content[0]"),
    ],
)
def test_what_is_refused_is_named(http: httpx2.Client, field: dict[str, Any], param: str) -> None:
    body = {"model": "test-model", "messages": [{"role": "user", "content": "Hello"}], **field}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert param.rpartition(".")[2].rpartition("]")[2] in error["message"]


def test_a_body_that_is_no_json(http: httpx2.Client) -> None:
    response = http.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "not JSON" in response.json()["error"]["message"]


def test_a_body_that_is_too_large(http: httpx2.Client) -> None:
    body = {"model": "test-model", "messages": [{"role": "user", "content": "x" * 5 * 2**20}]}
    for chunked in (False, True):
        content = json.dumps(body).encode()
        response = http.post(
            "/v1/chat/completions",
            content=iter([content]) if chunked else content,
            headers={"content-type": "application/json"},
        )
        assert response.status_code == 413
        assert "upload large media" in response.json()["error"]["message"]


@needs.program("curl")
def test_curl(api: str, media_root: Path) -> None:
    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "-H", "Authorization: Bearer key-of-ann", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    stored = json.loads(curl(f"{api}/v1/files", "-F", f"file=@{media_root}/clips/clip.mp4", "-F", "purpose=user_data"))
    assert stored["filename"] == "clip.mp4"
    body = {"model": "test-model", "messages": about(stored["id"]), **GREEDY}
    answer = json.loads(curl(f"{api}/v1/chat/completions", "--json", json.dumps(body)))
    lines = curl("-N", f"{api}/v1/chat/completions", "--json", json.dumps({**body, "stream": True})).splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(pieces) == answer["choices"][0]["message"]["content"]
    assert json.loads(curl("-X", "DELETE", f"{api}/v1/files/{stored['id']}"))["deleted"]
