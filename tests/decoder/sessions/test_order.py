"""Chunks in, credits out: the order of both, and what is refused."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions.chunk import Open
from sessions.credits import close_abandoned
from tests.decoder.sessions.stages import Stage1, Stage3, wait


def test_an_answer_is_streamed_with_credits_and_usage(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3()
    client = stage.stage_1()
    reply = client.everything(20, 60, order=lambda n: n[::-1], max_tokens=32)
    wait(lambda: reply.ends)
    assert reply.usage["token_ids"] == list(client.prompt.greedy)
    assert reply.text == stage.tokenizer.decode(client.prompt.greedy)
    assert reply.sent[-1].finish_reason == "length"
    assert not any(response.finish_reason or response.usage for response in reply.sent[:-1])
    assert client.credits == "=0\n" + "+" * (4 + 3) + "."
    assert [other.ends for other in client.replies] == [1] * 5
    assert not any(other.sent for other in client.replies[1:])
    usage = reply.usage
    assert usage["prompt_tokens"] == len(client.prompt.token_ids)
    assert usage["video_tokens"] == client.prompt.is_visual.sum()
    assert (usage["cached_tokens"], usage["completion_tokens"], usage["media"]) == (0, 32, [{"kind": "video"}])
    seconds = usage["seconds"]
    assert seconds["preprocess"] == {"plan": 1.5, "decode": 2.5, "waited": 0.5}
    assert seconds["encode"]["busy"] == pytest.approx(0.25 * sum(len(p.rows) > 0 for p in client.prompt.pieces(20, 60)))
    assert set(seconds["decoder"]) == {"waited_for_blocks", "prefill", "generate", "longest_between_tokens"}
    assert seconds["total"] >= seconds["first_token"] > 0


def test_wrong_chunks_end_their_session_with_the_reason(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)

    def refused(message: str, send: Callable[[Stage1], object]) -> None:
        client = stage.stage_1()
        send(client)
        wait(lambda: client.reply.ends)
        assert message in client.reply.error
        assert client.credits == "."

    refused("sampling_parameters.top_p is 7", lambda client: client.open(top_p=7))
    refused("chunk 0 has no `open`", lambda client: client.send(0, client.reply))
    refused("chunk 1 has no `plan`", lambda client: (client.open(), client.send(1)))
    refused("chunk 2 came twice", lambda client: (client.everything(9), client.data(2, client.prompt.pieces(9)[0])))
    refused("chunk 9 came while chunk 1 is missing", lambda client: (client.open(), client.send(9)))
    refused("came after the last one", lambda client: (client.everything(), client.send(3)))


def test_a_second_chunk_0_is_refused_and_the_session_goes_on(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3()
    client = stage.stage_1()
    client.open(max_tokens=32)
    second = client.send(0, open=Open(True, False, "{}"))
    client.plan()
    client.data(2, client.prompt.pieces()[0])
    wait(lambda: client.reply.ends)
    assert "came twice" in second.error
    assert client.reply.usage["token_ids"] == list(client.prompt.greedy)


def test_credits_go_to_a_waiting_fifo_only(stage_3: Callable[..., Stage3], tmp_path: Path) -> None:
    stage = stage_3(scripted=True)
    target = tmp_path / "elsewhere"
    target.write_text("precious")

    def refused(place: Callable[[Path], None], message: str) -> None:
        client = stage.stage_1()
        client.go_away()
        place(tmp_path / client.name)
        client.open()
        wait(lambda: client.reply.ends)
        assert message in client.reply.error

    refused(lambda path: path.write_text("file") and None, "its credits are no FIFO")
    refused(lambda path: path.symlink_to(target), "its credits cannot be opened")
    refused(lambda path: os.mkfifo(path), "unavailable: stage 1")
    refused(lambda path: None, "unavailable: stage 1")
    assert target.read_text() == "precious"


def test_abandoned_fifos_are_closed(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 32)
    os.mkfifo(path)
    (tmp_path / ("b" * 32)).write_text("no FIFO")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(reader)
    assert poll.poll(0) == []
    close_abandoned(tmp_path)
    assert poll.poll(0) == [(reader, select.POLLHUP)]
    close_abandoned(tmp_path / "nowhere")


def test_a_second_question_need_not_send_what_is_held(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3()
    first = stage.stage_1()
    first.everything(max_tokens=8)
    wait(lambda: first.reply.ends)
    second = stage.stage_1()
    second.open(max_tokens=8)
    second.plan()
    held = len(second.prompt.token_ids) - 1
    wait(lambda: second.credits == f"={held}\n++++")
    _, rest = second.prompt.pieces(held)
    second.data(2, rest)
    wait(lambda: second.reply.ends)
    assert second.reply.usage["cached_tokens"] == held
    assert second.reply.usage["token_ids"] == first.reply.usage["token_ids"]


def test_the_engine_is_told_whose_request_it_is(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    for salt in ("alice", ""):
        client = stage.stage_1()
        client.open(cache_salt=salt)
        client.plan()
        stage.settle()
        assert stage.engine.opened[client.name].cache_salt == salt
