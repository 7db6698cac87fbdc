"""The official `openai` package, unmodified, against the running stack."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Literal

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI

MODEL = "test-model"
# A form ends by itself.
LONG_ENOUGH = {"max_tokens": 40, "extra_body": {}}
GREEDY = {"temperature": 0, "max_tokens": 6, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def client(api: str) -> OpenAI:
    return OpenAI(base_url=f"{api}/v1", api_key="key-of-ann", max_retries=0)


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def user(*parts: dict) -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}]


def video(url: str) -> dict:
    return {"type": "video_url", "video_url": {"url": url}}


def image(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


def ask(client: OpenAI, messages: list[dict], **options: object) -> str:
    completion = client.chat.completions.create(model=MODEL, messages=messages, **{**GREEDY, **options})
    return completion.choices[0].message.content


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["test-model", "another-name"]
    assert client.models.retrieve("another-name").id == "another-name"
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.models.retrieve("gpt-9")


def test_text(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a video?"}],
        **GREEDY,
    )
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == MODEL
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 6
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 6
    assert completion.id == f"chatcmpl-{completion._request_id}"


def test_streamed_text_is_the_same(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "What is a video?"}]
    whole = ask(client, messages)
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage_has_none(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "What is a video?"}]
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True, **GREEDY))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_the_same_video_by_each_way_in(client: OpenAI, clip: bytes, media_root: Path) -> None:
    uploaded = client.files.create(file=("clip.mp4", clip), purpose="user_data")
    answers = {
        ask(client, user(video(url)))
        for url in (
            data_uri("video/mp4", clip),
            uploaded.id,
            "clips/clip.mp4",
            "file://clips/clip.mp4",
            f"file://{media_root}/clips/clip.mp4",
        )
    }
    assert len(answers) == 1
    client.files.delete(uploaded.id)


def test_the_same_image_by_each_way_in(client: OpenAI, picture: bytes) -> None:
    uploaded = client.files.create(file=("picture.png", picture), purpose="vision")
    urls = (data_uri("image/png", picture), uploaded.id, "clips/picture.png")
    assert len({ask(client, user(image(url))) for url in urls}) == 1
    client.files.delete(uploaded.id)


def test_a_video_is_seen(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=user(video("clips/clip.mp4")), **GREEDY)
    details = completion.usage.prompt_tokens_details
    assert details.video_tokens > 0
    assert details.cached_tokens >= 0


def test_a_second_question_about_a_video_finds_it_cached(client: OpenAI) -> None:
    usages = [
        client.chat.completions.create(model=MODEL, messages=user(video("clips/clip.mp4")), **GREEDY).usage
        for _ in range(2)
    ]
    assert usages[1].prompt_tokens_details.cached_tokens > 0


def test_several_turns(client: OpenAI) -> None:
    messages = user(video("clips/clip.mp4"), image("clips/picture.png"))
    completion = client.chat.completions.create(model=MODEL, messages=messages, **GREEDY)
    # As people write it: the message object itself goes back.
    messages += [completion.choices[0].message, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(model=MODEL, messages=messages, **GREEDY)
    assert second.usage.prompt_tokens > completion.usage.prompt_tokens


def test_a_seed_repeats_a_sampled_answer(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Say anything."}]
    answers = [ask(client, messages, temperature=1.5, seed=seed, max_tokens=12) for seed in (7, 7, 8)]
    assert answers[0] == answers[1] != answers[2]


def test_stop(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "What is a video?"}]
    whole = ask(client, messages)
    completion = client.chat.completions.create(model=MODEL, messages=messages, stop=[whole[2:4]], **GREEDY)
    assert completion.choices[0].message.content == whole[: whole.index(whole[2:4])]
    assert completion.choices[0].finish_reason == "stop"


class Event(pydantic.BaseModel):
    """Of nothing else: what a schema leaves open, a model may fill without end."""

    model_config = pydantic.ConfigDict(extra="forbid")

    seen: bool
    color: Literal["red", "blue"]


def test_json_of_a_schema(client: OpenAI) -> None:
    messages = user(video("clips/clip.mp4"))
    schema = {"name": "event", "schema": Event.model_json_schema(), "strict": True}
    text = ask(client, messages, response_format={"type": "json_schema", "json_schema": schema}, **LONG_ENOUGH)
    assert Event.model_validate_json(text)
    parsed = client.chat.completions.parse(
        model=MODEL, messages=messages, response_format=Event, temperature=0, max_tokens=40
    )
    assert isinstance(parsed.choices[0].message.parsed, Event)
    assert parsed.choices[0].finish_reason == "stop"


def test_a_json_object(client: OpenAI) -> None:
    text = ask(client, user(), response_format={"type": "json_object"}, **LONG_ENOUGH)
    assert text.startswith("{")
    assert ask(client, user(), response_format={"type": "text"}) == ask(client, user())


def test_max_completion_tokens_wins(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], **GREEDY, max_completion_tokens=2
    )
    assert completion.usage.completion_tokens == 2


def test_errors(client: OpenAI) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=hello)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match=r"n: Input should be 1") as several:
        client.chat.completions.create(model=MODEL, messages=hello, n=2)
    assert (several.value.param, several.value.type) == ("n", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="best_of is not a field"):
        client.chat.completions.create(model=MODEL, messages=hello, extra_body={"best_of": 2})
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        client.chat.completions.create(model=MODEL, messages=hello, logprobs=True)
    with pytest.raises(openai.BadRequestError, match="not a readable video"):
        client.chat.completions.create(model=MODEL, messages=user(video(data_uri("video/mp4", b"no video"))))
    with pytest.raises(openai.BadRequestError, match="fps is 61") as options:
        client.chat.completions.create(model=MODEL, messages=hello, extra_body={"video_options": {"fps": 61}})
    assert options.value.param == "fps"
    with pytest.raises(openai.NotFoundError, match="no such file"):
        client.chat.completions.create(model=MODEL, messages=user(video("clips/nothing.mp4")))
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_an_error_of_a_streamed_request_has_its_status(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not a readable video"):
        client.chat.completions.create(
            model=MODEL, messages=user(video(data_uri("video/mp4", b"no video"))), stream=True
        )


def test_files(client: OpenAI, clip: bytes) -> None:
    uploaded = client.files.create(
        file=("Köln.mp4", clip), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (uploaded.filename, uploaded.bytes, uploaded.purpose) == ("Köln.mp4", len(clip), "vision")
    assert uploaded.expires_at == uploaded.created_at + 3600
    assert client.files.retrieve(uploaded.id) == uploaded
    assert client.files.content(uploaded.id).read() == clip
    assert uploaded.id in [stored.id for stored in client.files.list(purpose="vision", limit=1)]
    assert client.files.delete(uploaded.id).deleted
    with pytest.raises(openai.NotFoundError, match=uploaded.id):
        client.files.retrieve(uploaded.id)


def test_async(api: str, clip: bytes) -> None:
    async def main() -> tuple[list[str], str]:
        async with AsyncOpenAI(base_url=f"{api}/v1", api_key="key-of-ann", max_retries=0) as client:
            messages = user(video(data_uri("video/mp4", clip)))
            whole = await asyncio.gather(
                *(client.chat.completions.create(model=MODEL, messages=messages, **GREEDY) for _ in range(3))
            )
            stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True, **GREEDY)
            streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        return [completion.choices[0].message.content for completion in whole], streamed

    whole, streamed = asyncio.run(main())
    assert whole == [streamed] * 3
