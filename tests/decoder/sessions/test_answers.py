"""What a client is told: text, progress, usage and the state."""

from __future__ import annotations

from collections.abc import Callable

from engines.protocol import Admitted, Prefilled, Tokens, Waiting
from tests.decoder.sessions.stages import Stage3, wait


def test_without_streaming_there_is_one_response(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3()
    client = stage.stage_1()
    reply = client.everything(stream=False, max_tokens=32)
    wait(lambda: reply.ends)
    assert len(reply.sent) == 1
    assert reply.text == stage.tokenizer.decode(client.prompt.greedy)


def test_tokens_that_are_ready_together_are_sent_together(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    client.everything()
    ids = stage.tokenizer.encode("hello world").ids
    assert len(ids) > 1
    # One message more than there are: the sessions' thread takes what is there when it wakes up.
    stage.speak(client, Admitted(), Prefilled(10), Tokens(tuple(ids)))
    wait(lambda: client.reply.text == "hello world")
    assert len(client.reply.sent) == 1


def test_a_stop_string_ends_the_answer_at_its_token(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    client.everything(stop=["world"])
    before, stop = stage.tokenizer.encode("hello ").ids, stage.tokenizer.encode("world").ids
    stage.speak(client, Admitted(), Tokens((*before, *stop, *before)), Tokens((stop[0],)))
    wait(lambda: client.reply.ends)
    assert (client.reply.text, client.reply.sent[-1].finish_reason) == ("hello ", "stop")
    assert client.reply.usage["token_ids"] == [*before, *stop]
    assert stage.engine.cancelled == [client.name]


def test_a_stop_string_counts_after_min_tokens_only(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    ids = stage.tokenizer.encode("world").ids
    client.everything(stop=["world"], min_tokens=len(ids))
    stage.speak(client, Admitted(), Tokens((*ids, *ids, *ids)))
    wait(lambda: client.reply.ends)
    assert (client.reply.text, client.reply.usage["completion_tokens"]) == ("world", 2 * len(ids))


def test_a_stop_token_is_counted_and_not_said(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    client.everything(skip_special_tokens=False)
    ids = stage.tokenizer.encode("hello").ids
    stage.speak(client, Admitted(), Tokens((*ids, ids[-1]), "stop"))
    wait(lambda: client.reply.ends)
    assert (client.reply.text, client.reply.usage["completion_tokens"]) == ("hello", len(ids) + 1)


def test_progress_comes_when_asked_and_not_too_often(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    tokens = len(client.prompt.token_ids)
    client.everything(progress=True)
    stage.speak(client, Admitted(), *[Prefilled(1)] * tokens, Tokens((5,), "length"))
    wait(lambda: client.reply.ends)
    progress = client.reply.progress
    assert [p["phase"] for p in progress[:3]] == ["sampling", "waiting", "prefill"]
    assert progress[1] == {"phase": "waiting", "prompt_tokens": tokens, "prefilled_tokens": 0}
    assert progress[-1] == {"phase": "prefill", "prompt_tokens": tokens, "prefilled_tokens": tokens}
    assert len(progress) < 20
    quiet = stage.stage_1()
    quiet.everything()
    stage.speak(quiet, Admitted(), Prefilled(tokens), Tokens((5,), "length"))
    wait(lambda: quiet.reply.ends)
    assert quiet.reply.progress == []


def test_a_heartbeat_brings_the_latest_progress(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    client.everything(progress=True)
    # Too soon after `prefill` began to be told by itself.
    stage.speak(client, Admitted(), Prefilled(1))
    client.send(None)
    wait(lambda: any(told["prefilled_tokens"] == 1 for told in client.reply.progress))
    client.send(None)
    wait(lambda: len(client.reply.progress) >= 5)
    assert client.reply.progress[-1] == client.reply.progress[-2]


def test_who_waits_is_told_the_place(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    client.open(progress=True)
    client.plan()
    stage.settle()
    stage.speak(client, Waiting(3), Waiting(2))
    stage.settle()
    client.send(None)
    stage.settle()
    assert client.reply.progress[-1] == {
        **{"phase": "waiting", "prompt_tokens": len(client.prompt.token_ids), "prefilled_tokens": 0},
        "queue_place": 2,
    }
    stage.speak(client, Admitted(), Tokens((1,), "length"))
    wait(lambda: client.reply.ends)
    assert client.reply.usage["queue_place"] == 3


def test_the_state_is_told(stage_3: Callable[..., Stage3]) -> None:
    assert stage_3(scripted=True).settle() == {
        **{"blocks_total": 10, "blocks_free": 7, "blocks_cached": 3},
        **{"sessions": 2, "waiting": 1},
    }


def test_cached_tokens_are_the_owner_s_own(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3()
    cached = []
    for salt in ("alice", "bob", "alice"):
        client = stage.stage_1()
        reply = client.everything(cache_salt=salt, max_tokens=2)
        wait(lambda reply=reply: reply.ends)
        cached.append(reply.usage["cached_tokens"])
    assert cached == [0, 0, len(client.prompt.token_ids) // 16 * 16]
