"""The library against a real server that answers as the question says."""

import gc
import json
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from qwen3_vl_client import (
    Answer,
    Cancelled,
    Client,
    InternalError,
    InvalidRequest,
    Medium,
    NotFound,
    Progress,
    ServerUnavailable,
    Stream,
    TextDelta,
    Timeout,
    Timeouts,
)
from tests.client.scripted import CRASH, ECHO, FOREVER, HELLO, SILENCE, ScriptedServer, error, script


def read_until_text(stream: Stream) -> None:
    for event in stream:
        if isinstance(event, TextDelta):
            return
    raise AssertionError("the stream ended")


def test_answer(client: Client, video: Path) -> None:
    answer = client.ask(video, HELLO)
    assert (answer.text, answer.finish_reason) == ("It rains at 2.5 s: 雨", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.video_tokens, answer.usage.completion_tokens) == (120, 96, 3)
    assert answer.usage.media == (Medium("video", (2, 8, 24), (0.5, 2.5)),)
    assert answer.usage.seconds == {"total": 1.5, "preprocess.decode": 0.25}
    assert answer.timings.uploaded is not None
    assert answer.timings.first_text is not None
    assert answer.timings.uploaded <= answer.timings.first_text <= answer.timings.total


def test_events(client: Client, video: Path) -> None:
    with client.stream(video, HELLO) as stream:
        events = list(stream)
        answer = stream.result()
    assert events == [
        Progress("upload", upload_bytes=5 + len(HELLO)),
        Progress("sampling"),
        Progress("prefill", prompt_tokens=120, prefilled_tokens=64),
        TextDelta("It "),
        TextDelta("rains at 2.5 s: 雨"),
    ]
    assert answer.text == "It rains at 2.5 s: 雨"
    assert answer.request_id == stream.request_id


def test_inputs_arrive(client: Client, video: Path) -> None:
    answer = client.ask([video, b"1234567"], ECHO, image=b"12", uri="a/b.mp4", max_tokens=7, temperature=0.0, start=2.5)
    echo = json.loads(answer.text)
    assert echo == {
        "id": answer.request_id,
        "parameters": {"progress": True},
        "text_input": ECHO,
        "video": [5, 7],
        "image": [2],
        "video_uri": ["a/b.mp4"],
        "sampling_parameters": {"max_tokens": 7, "temperature": 0.0},
        "video_options": {"start": 2.5},
    }


def test_chat(client: Client, video: Path) -> None:
    parts = [{"type": "video", "video": video}, {"type": "text", "text": ECHO}]
    echo = json.loads(client.chat([{"role": "user", "content": parts}], seed=1).text)
    assert echo["video"] == [5]
    assert echo["messages"] == [{"role": "user", "content": [{"type": "video", "video": 0}, parts[1]]}]
    assert "text_input" not in echo


def test_error_ends_the_request(client: Client) -> None:
    with client.stream(None, error("in ensemble 'qwen3_vl', not_found: no such video")) as stream:
        read_until_text(stream)
        with pytest.raises(NotFound, match="no such video") as raised:
            stream.result()
    assert raised.value.request_id == stream.request_id


def test_answer_without_a_reason_is_an_error(client: Client) -> None:
    with pytest.raises(InternalError, match="without a reason"):
        client.ask(None, script(["text", "It "]))


def test_usage_that_is_no_json_is_an_error(client: Client) -> None:
    with pytest.raises(InternalError, match="usage is 'not JSON'"):
        client.ask(None, script(["finish", "stop", "not JSON"]))


def test_answer_does_not_wait_for_a_server_that_forgets_to_close(client: Client, server: ScriptedServer) -> None:
    answer = client.ask(None, script(["text", "It "], ["finish", "stop"], ["sleep", 5]))
    assert answer.text == "It "
    assert not server.was_stopped(answer.request_id, wait_seconds=0.3)


def test_close_stops_the_request(client: Client, server: ScriptedServer) -> None:
    with client.stream(None, FOREVER) as stream:
        read_until_text(stream)
    assert server.was_stopped(stream.request_id, wait_seconds=0)
    with pytest.raises(Cancelled, match="closed before"):
        stream.result()


def test_answered_request_is_not_stopped(client: Client, server: ScriptedServer) -> None:
    answer = client.ask(None, HELLO)
    assert not server.was_stopped(answer.request_id, wait_seconds=0.3)


def test_garbage_collection_stops_the_request(client: Client, server: ScriptedServer) -> None:
    stream = client.stream(None, FOREVER)
    read_until_text(stream)
    request_id = stream.request_id
    del stream
    gc.collect()
    assert server.was_stopped(request_id)


def test_keyboard_interrupt_stops_the_request(client: Client, server: ScriptedServer) -> None:
    stream = client.stream(None, SILENCE)
    read_until_text(stream)
    main = threading.get_ident()
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        stream.result()
    assert server.was_stopped(stream.request_id, wait_seconds=0)


def test_closed_client_stops_its_requests(server: ScriptedServer) -> None:
    with Client(server.url) as client:
        stream = client.stream(None, FOREVER)
        read_until_text(stream)
    assert server.was_stopped(stream.request_id, wait_seconds=0)


def test_silence_ends_the_request(server: ScriptedServer) -> None:
    with Client(server.url, timeouts=Timeouts(silence=0.3)) as client:
        stream = client.stream(None, SILENCE)
        with pytest.raises(Timeout, match=r"nothing was heard from the server for 0\.3 s"):
            stream.result()
    assert server.was_stopped(stream.request_id)


def test_progress_is_no_silence(server: ScriptedServer) -> None:
    steps: list[list[Any]] = [["progress", "waiting", 120, 0], ["sleep", 0.2]] * 5
    with Client(server.url, timeouts=Timeouts(silence=0.8)) as client:
        assert client.ask(None, script(*steps, ["finish", "stop"])).finish_reason == "stop"


def test_total_ends_a_request_that_is_not_silent(client: Client, server: ScriptedServer) -> None:
    stream = client.stream(None, FOREVER, timeout=0.5)
    with pytest.raises(Timeout, match=r"no complete answer within 0\.5 s"):
        stream.result()
    assert server.was_stopped(stream.request_id)


def test_streams_at_once(client: Client) -> None:
    answers: dict[int, Answer] = {}

    def ask(number: int) -> None:
        answers[number] = client.ask(None, script(["text", str(number)], ["sleep", 0.2], ["finish", "stop"]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    with client.stream(None, FOREVER) as forever:
        read_until_text(forever)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        read_until_text(forever)
    assert {number: answer.text for number, answer in answers.items()} == {n: str(n) for n in range(8)}


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Client(f"127.0.0.1:{port}") as client,
        pytest.raises(ServerUnavailable, match=f"no Triton server answers gRPC at 127.0.0.1:{port}.*make serve"),
    ):
        client.ask(None, HELLO)


def test_server_that_never_speaks_is_given_up_after_connect() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        Client(f"127.0.0.1:{mute.getsockname()[1]}", timeouts=Timeouts(connect=0.5, total=20)) as client,
        pytest.raises(ServerUnavailable),
    ):
        client.ask(None, HELLO)


def test_local_mistake_sends_nothing() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="does not exist"):
        client.ask("no such file.mp4", HELLO)


def test_headers_do_not_disturb(server: ScriptedServer) -> None:
    with Client(server.url, headers={"Authorization": "Bearer x"}) as client:
        assert client.ask(None, HELLO).finish_reason == "stop"


def test_server_goes_in_mid_stream(own_server: ScriptedServer) -> None:
    with Client(own_server.url) as client, client.stream(None, FOREVER) as stream:
        read_until_text(stream)
        own_server.kill()
        with pytest.raises(ServerUnavailable, match="went away during the request"):
            stream.result()


def test_model_that_crashes_is_no_hang(own_server: ScriptedServer) -> None:
    with Client(own_server.url, timeouts=Timeouts(silence=3)) as client:
        with pytest.raises((Timeout, ServerUnavailable)):
            client.ask(None, CRASH)
        with pytest.raises(ServerUnavailable, match="not healthy"):
            client.ask(None, HELLO)
