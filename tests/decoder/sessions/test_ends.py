"""Every way in which a session ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from engines.errors import RequestError
from engines.protocol import Admitted, Failed, Tokens
from sessions.chunk import Open
from sessions.inbox import CHECK_SECONDS
from sessions.reply import Response
from sessions.session import OVERTAKEN_SECONDS
from tests.decoder.sessions.stages import Recorded, Stage3, wait


def test_stop_ends_all_requests_with_an_id(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(kv_cache_tokens=50_000)
    first, second, other = (stage.stage_1() for _ in range(3))
    first.everything(max_tokens=20_000)
    second.open()
    other.everything(max_tokens=20_000)
    wait(lambda: first.reply.text and other.reply.text)
    assert stage.stop("unknown") == ""
    assert stage.stop("") == ""
    assert stage.stop(f"request {first.name}") == "cancelled"
    assert first.reply.sent[-1].finish_reason == "cancelled"
    assert first.credits[-1] == "."
    assert not other.reply.ends
    assert stage.stop(f"request {second.name}") == "cancelled"
    assert second.reply.usage["completion_tokens"] == 0
    assert stage.stop(f"request {other.name}") == "cancelled"
    wait(lambda: stage.settle()["blocks_free"] == stage.settle()["blocks_total"])


def test_a_cancelled_chunk_ends_its_session(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    before, during = stage.stage_1(), stage.stage_1()
    before.send(0, before.reply, open=Open(True, False, "{}"), cancelled=True)
    during.everything()
    during.send(None, cancelled=True)
    wait(lambda: before.reply.ends and during.reply.ends)
    assert during.reply.sent[-1].finish_reason == "cancelled"
    assert before.credits == during.credits == "."
    # What was still under way to it is ended quietly.
    late = [during.send(3), during.send(None), before.plan()]
    wait(lambda: all(reply.ends for reply in late))
    assert not any(reply.error for reply in late)
    assert stage.sessions._sessions == {}


def test_stage_1_that_goes_away_ends_the_session(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    waiting, granted = stage.stage_1(), stage.stage_1()
    waiting.open()
    stage.settle()
    waiting.go_away()
    wait(lambda: waiting.reply.error)
    assert waiting.reply.error == "unavailable: stage 1 (video_preprocess) is gone"
    granted.everything()
    granted.go_away()
    stage.speak(granted, Admitted())
    wait(lambda: granted.reply.error)
    assert granted.reply.error == "unavailable: stage 1 (video_preprocess) is gone"
    assert granted.name in stage.engine.cancelled


def test_silence_ends_a_session_and_heartbeats_prevent_it(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True, silence_seconds=0.5)
    silent, heard = stage.stage_1(), stage.stage_1()
    silent.open()
    heard.open()

    def silent_is_over() -> bool:
        heard.send(None)
        return bool(silent.reply.ends)

    wait(silent_is_over)
    assert silent.reply.error == (
        "unavailable: the stages before were silent for 0.5 seconds; where a chunk takes longer to encode, the "
        "operator sets the decoder's parameter silence_seconds higher"
    )
    assert not heard.reply.ends


def test_a_session_that_later_ones_overtake_was_lost_on_the_way(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    lost, waiting, heard = stage.stage_1(), stage.stage_1(), stage.stage_1()
    lost.send(0, lost.reply, open=Open(True, False, "{}"), sent=time.monotonic() - OVERTAKEN_SECONDS - 1)
    waiting.send(0, waiting.reply, open=Open(True, False, "{}"), sent=time.monotonic() - OVERTAKEN_SECONDS / 2)
    time.sleep(2 * CHECK_SECONDS)
    assert not lost.reply.ends
    # A clock that is ahead overtakes nobody.
    heard.send(0, heard.reply, open=Open(True, False, "{}"), sent=time.monotonic() + 3600)
    wait(lambda: lost.reply.error)
    assert lost.reply.error == ("unavailable: what followed was lost on the way: stage 2 (vision_encoder) has ended")
    assert lost.name in stage.engine.cancelled
    time.sleep(2 * CHECK_SECONDS)
    assert not waiting.reply.ends
    assert not heard.reply.ends


def test_the_time_limit_ends_an_answer_with_what_it_has(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True, max_generation_seconds=0.3)
    client, prefilling = stage.stage_1(), stage.stage_1()
    client.everything()
    prefilling.everything()
    stage.speak(client, Admitted(), Tokens(tuple(stage.tokenizer.encode("hello").ids)))
    stage.speak(prefilling, Admitted())
    wait(lambda: client.reply.ends)
    assert (client.reply.text, client.reply.sent[-1].finish_reason) == ("hello", "time_limit")
    assert not prefilling.reply.ends


def test_an_engine_that_fails_or_refuses_ends_the_session(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    failed, refused = stage.stage_1(), stage.stage_1()
    failed.everything()
    stage.speak(failed, Admitted(), Failed("internal", "the engine failed: RuntimeError: x"))
    wait(lambda: failed.reply.ends)
    assert failed.reply.error == "internal: the engine failed: RuntimeError: x"
    assert failed.credits == "=0\n++++."
    stage.engine.refusal = RequestError("resource_exhausted", "2 requests are waiting")
    refused.everything()
    wait(lambda: refused.reply.ends)
    assert refused.reply.error == "resource_exhausted: 2 requests are waiting"
    assert refused.credits == "."


def test_a_client_that_cannot_be_told_harms_nobody(stage_3: Callable[..., Stage3]) -> None:
    class Broken(Recorded):
        def send(self, response: Response, *, final: bool = False) -> None:
            raise RuntimeError("the client is gone")

        def fail(self, error: RequestError) -> None:
            raise RuntimeError("the client is gone")

    stage = stage_3(scripted=True)
    client, other = stage.stage_1(), stage.stage_1()
    client.reply = Broken()
    client.everything()
    other.everything()
    ids = tuple(stage.tokenizer.encode("hello").ids)
    stage.speak(client, Admitted(), Tokens(ids))
    stage.speak(other, Admitted(), Tokens(ids))
    wait(lambda: other.reply.text == "hello")
    wait(lambda: client.credits == "=0\n++++.")
    assert client.name in stage.engine.cancelled


def test_closing_ends_every_session_with_an_error(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    client = stage.stage_1()
    client.everything()
    stage.settle()
    stage.sessions.close()
    assert client.reply.error == "unavailable: the decoder is being unloaded"
