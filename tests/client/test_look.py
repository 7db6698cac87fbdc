"""Asking what would be looked at, both clients."""

import asyncio
from pathlib import Path

import pytest

from qwen3_vl_client import AsyncClient, Client, InvalidRequest, ServerUnavailable, Timeout, Timeouts
from tests.client.scripted import ScriptedServer


def test_look(client: Client, video: Path) -> None:
    look = client.look(video, subtitles=video, fps=1)
    assert (look.prompt_tokens, look.wanted_tokens) == (120, 120)
    (medium,) = look.media
    assert (medium.kind, medium.seconds, medium.timestamps) == ("video", 400.0, (0.5, 2.5))
    assert medium.cuts[:2] == (50.0, 100.0)
    assert len(medium.changes) == 512
    assert medium.pauses == ((10.0, 12.0),)


def test_async_look_is_the_same(server: ScriptedServer, client: Client) -> None:
    async def look() -> object:
        async with AsyncClient(server.url) as asynchronous:
            return await asynchronous.look(uri="a.mp4")

    assert asyncio.run(look()) == client.look(uri="a.mp4")


def test_errors_have_their_class(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="fps is -1"):
        client.look(uri="a.mp4", question="error invalid_argument: fps is -1")
    with Client("127.0.0.1:1") as nobody, pytest.raises(ServerUnavailable, match="make serve"):
        nobody.look(uri="a.mp4")


def test_look_at_what_a_conversation_shows(server: ScriptedServer, client: Client, video: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": "Hi"}]}]

    async def look() -> object:
        async with AsyncClient(server.url) as asynchronous:
            return await asynchronous.look_chat(messages, fps=1)

    assert client.look_chat(messages, fps=1) == asyncio.run(look()) == client.look(video, fps=1)


def test_a_stage_that_says_nothing_is_not_waited_for_without_end(server: ScriptedServer) -> None:
    timeouts = Timeouts(silence=0.5)

    async def look() -> object:
        async with AsyncClient(server.url, timeouts=timeouts) as asynchronous:
            return await asynchronous.look(uri="a.mp4", question="silence 3")

    with pytest.raises(Timeout):
        asyncio.run(look())
    with Client(server.url, timeouts=timeouts) as client, pytest.raises(Timeout):
        client.look(uri="a.mp4", question="silence 3")
