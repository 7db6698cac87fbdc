"""Views of a client for one owner: what they send carries the owner's salt, over the connection of the client."""

import asyncio
from typing import Any

import pytest

from qwen3_vl_client import AsyncClient, Cancelled, Client
from tests.client.scripted import FOREVER, ScriptedServer

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
ASKED = [("qwen3_vl", "alice"), ("qwen3_vl", "alice"), ("video_preprocess", "alice"), ("video_preprocess", "alice")]


def test_everything_that_is_asked_carries_the_salt(server: ScriptedServer, client: Client) -> None:
    before = len(server.salts())
    alice = client.salted("alice")
    alice.ask(question="Hi")
    alice.chat(MESSAGES)
    alice.look(uri="a.mp4")
    alice.look_chat(MESSAGES)
    assert server.salts()[before:] == ASKED


def test_the_other_client_sends_the_same(server: ScriptedServer) -> None:
    async def ask() -> None:
        async with AsyncClient(server.url) as client:
            alice = client.salted("alice")
            await alice.ask(question="Hi")
            await alice.chat(MESSAGES)
            await alice.look(uri="a.mp4")
            await alice.look_chat(MESSAGES)

    before = len(server.salts())
    asyncio.run(ask())
    assert server.salts()[before:] == ASKED


def test_summaries_carry_the_salt(server: ScriptedServer, client: Client) -> None:
    async def summarize() -> None:
        async with AsyncClient(server.url) as asynchronous:
            async for _ in asynchronous.salted("bob").summarize(uri="a.mp4"):
                pass

    before = len(server.salts())
    for _ in client.salted("alice").summarize(uri="a.mp4"):
        pass
    between = len(server.salts())
    asyncio.run(summarize())
    assert {salt for _, salt in server.salts()[before:between]} == {"alice"}
    assert {salt for _, salt in server.salts()[between:]} == {"bob"}
    assert {model for model, _ in server.salts()[between:]} == {"qwen3_vl", "video_preprocess"}


def test_the_client_itself_and_stops_have_none(server: ScriptedServer, client: Client) -> None:
    client.salted("alice")
    before = len(server.salts())
    client.ask(question="Hi")
    client.salted("").ask(question="Hi")
    with client.salted("alice").stream(question=FOREVER) as stream:
        next(event for event in stream if type(event).__name__ == "TextDelta")
    assert server.was_stopped(stream.request_id)
    assert server.salts()[before:] == [("qwen3_vl", None), ("qwen3_vl", None), ("qwen3_vl", "alice"), ("decoder", None)]


def test_a_closed_view_ends_its_own_streams_only(server: ScriptedServer, client: Client) -> None:
    alice = client.salted("alice")
    others, own = client.stream(question=FOREVER), alice.stream(question=FOREVER)
    alice.close()
    assert server.was_stopped(own.request_id)
    assert not server.was_stopped(others.request_id, 0)
    others.close()
    assert alice.ask(question="Hi").text == "At 2.5 s."


def test_a_closed_client_ends_the_streams_of_its_views(server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            stream = client.salted("alice").stream(question=FOREVER)
            await anext(stream)
            await client.salted("bob").close()
            assert (await client.salted("alice").ask(question="Hi")).text == "At 2.5 s."
        assert await asyncio.to_thread(server.was_stopped, stream.request_id)
        with pytest.raises(Cancelled):
            await stream.result()

    asyncio.run(main())
    with Client(server.url) as client:
        blocking = client.salted("alice").stream(question=FOREVER)
    assert server.was_stopped(blocking.request_id)
