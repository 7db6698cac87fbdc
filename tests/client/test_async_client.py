"""The asyncio face against a real server that answers as the question says."""

import asyncio
import gc
import json
import socket
from pathlib import Path

import pytest

from qwen3_vl_client import (
    AsyncClient,
    AsyncStream,
    Cancelled,
    Client,
    InvalidRequest,
    NotFound,
    Progress,
    ServerUnavailable,
    TextDelta,
    Timeout,
    Timeouts,
)
from qwen3_vl_client.aio import within
from tests.client.scripted import ECHO, FOREVER, HELLO, SILENCE, ScriptedServer, error, script


async def read_until_text(stream: AsyncStream) -> None:
    async for event in stream:
        if isinstance(event, TextDelta):
            return
    raise AssertionError("the stream ended")


async def stopped(server: ScriptedServer, request_id: str | None) -> bool:
    return await asyncio.to_thread(server.was_stopped, request_id)


def test_answer_and_events(server: ScriptedServer, video: Path) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            assert (await client.ask(video, HELLO)).text == "It rains at 2.5 s: 雨"
            async with client.stream(video, HELLO) as stream:
                events = [event async for event in stream]
                answer = await stream.result()
        assert events == [
            Progress("upload", upload_bytes=5 + len(HELLO)),
            Progress("sampling"),
            Progress("prefill", prompt_tokens=120, prefilled_tokens=64),
            TextDelta("It "),
            TextDelta("rains at 2.5 s: 雨"),
        ]
        assert answer.usage.completion_tokens == 3
        assert not await asyncio.to_thread(server.was_stopped, stream.request_id, 0.3)

    asyncio.run(main())


def test_chat(server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            content = [{"type": "image", "image": b"123"}, {"type": "text", "text": ECHO}]
            echo = json.loads((await client.chat([{"role": "user", "content": content}], top_k=1)).text)
        assert echo["image"] == [3]
        assert echo["sampling_parameters"] == {"top_k": 1}

    asyncio.run(main())


def test_requests_at_once(server: ScriptedServer) -> None:
    async def main() -> list[str]:
        async with AsyncClient(server.url) as client:
            questions = [script(["text", str(n)], ["sleep", 0.2], ["finish", "stop"]) for n in range(8)]
            return [answer.text for answer in await asyncio.gather(*(client.ask(None, q) for q in questions))]

    assert asyncio.run(main()) == [str(n) for n in range(8)]


def test_cancelled_task_stops_the_request(server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            stream = client.stream(None, SILENCE)
            await read_until_text(stream)
            task = asyncio.create_task(stream.result())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await stopped(server, stream.request_id)

    asyncio.run(main())


def test_close_from_another_task(server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            stream = client.stream(None, SILENCE)
            await read_until_text(stream)
            task = asyncio.create_task(stream.result())
            await asyncio.sleep(0.1)
            await stream.close()
            with pytest.raises(Cancelled):
                await task
            assert await stopped(server, stream.request_id)

    asyncio.run(main())


def test_close_stops_the_request(server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            async with client.stream(None, FOREVER) as stream:
                await read_until_text(stream)
            assert server.was_stopped(stream.request_id, wait_seconds=0)

    asyncio.run(main())


def test_garbage_collection_stops_the_request(server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            stream = client.stream(None, FOREVER)
            await read_until_text(stream)
            request_id = stream.request_id
            del stream
            gc.collect()
            assert await stopped(server, request_id)

    asyncio.run(main())


def test_a_time_that_ran_out_at_the_server_is_told_in_its_words(server: ScriptedServer) -> None:
    slow = json.dumps([["error", "deadline_exceeded: video[0] cannot be read: its decoder made no progress"]])

    async def ask() -> object:
        async with AsyncClient(server.url) as client:
            return await client.ask(None, slow)

    with pytest.raises(Timeout, match="its decoder made no progress"):
        asyncio.run(ask())
    with Client(server.url) as client, pytest.raises(Timeout, match="its decoder made no progress"):
        client.ask(None, slow)


def test_timeouts_stop_the_request(server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, timeouts=Timeouts(silence=0.3)) as client:
            silent, endless = client.stream(None, SILENCE), client.stream(None, FOREVER, timeout=0.5)
            with pytest.raises(Timeout, match="nothing was heard"):
                await silent.result()
            with pytest.raises(Timeout, match="no complete answer"):
                await endless.result()
            assert await stopped(server, silent.request_id)
            assert await stopped(server, endless.request_id)

    asyncio.run(main())


def test_errors(server: ScriptedServer) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        async with AsyncClient(f"127.0.0.1:{port}") as nowhere:
            with pytest.raises(ServerUnavailable, match="make serve"):
                await nowhere.ask(None, HELLO)
            with pytest.raises(InvalidRequest, match="does not exist"):
                await nowhere.ask("no such file.mp4", HELLO)
        async with AsyncClient(server.url) as client:
            with pytest.raises(NotFound, match="no such video"):
                await client.ask(None, error("in ensemble 'qwen3_vl', not_found: no such video"))

    asyncio.run(main())


def test_server_goes_in_mid_stream(own_server: ScriptedServer) -> None:
    async def main() -> None:
        async with AsyncClient(own_server.url) as client, client.stream(None, FOREVER) as stream:
            await read_until_text(stream)
            own_server.kill()
            with pytest.raises(ServerUnavailable, match="went away"):
                await stream.result()

    asyncio.run(main())


def test_a_cancellation_that_comes_with_a_response_is_not_lost() -> None:
    async def main() -> None:
        arrived = asyncio.get_running_loop().create_future()

        async def read() -> str:
            return await arrived

        waiting = asyncio.create_task(within(10, read()))
        await asyncio.sleep(0.01)
        arrived.set_result("a response")
        await asyncio.sleep(0)  # it has been read, and is not handed on yet
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
