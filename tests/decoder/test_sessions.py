"""Sessions from their first chunk to their end, with FIFOs, replies and a scripted or the real engine."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from engines.checkpoint import read_generation_config, read_model_config
from engines.errors import RequestError
from engines.protocol import Admitted, Engine, EngineState, Failed, Prefilled, PromptPiece, Request, Tokens, Waiting
from engines.pytorch.engine import create_engine
from engines.settings import Settings
from sessions.chunk import Chunk, Header, Open, Plan
from sessions.credits import close_abandoned
from sessions.detokenizer import Vocabulary
from sessions.inbox import CHECK_SECONDS, ChunkArrived, EngineSpoke, Inbox, Sessions, StateAsked, StopAsked
from sessions.reply import Response
from sessions.session import OVERTAKEN_SECONDS, Services
from tests.decoder.harness import Prompt, make_prompt, make_settings

PATIENCE_SECONDS = 20


@dataclass
class Recorded:
    """A reply that remembers what was sent."""

    sent: list[Response] = field(default_factory=list)
    error: str = ""
    ends: int = 0

    def send(self, response: Response, *, final: bool = False) -> None:
        assert not self.ends, "a response after the end"
        self.sent.append(response)
        self.ends += final

    def fail(self, message: str) -> None:
        assert not self.ends
        self.error = message
        self.ends += 1

    def close(self) -> None:
        assert not self.ends
        self.ends += 1

    @property
    def text(self) -> str:
        return "".join(response.text for response in self.sent)

    @property
    def usage(self) -> dict[str, Any]:
        return dict(json.loads(self.sent[-1].usage))

    @property
    def progress(self) -> list[dict[str, Any]]:
        return [json.loads(response.progress) for response in self.sent if response.progress]


@dataclass
class ScriptedEngine:
    """Does nothing by itself; remembers what it was told."""

    opened: dict[str, Request] = field(default_factory=dict)
    fed: dict[str, list[PromptPiece]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    refusal: RequestError | None = None

    def open(self, session: str, request: Request) -> None:
        if self.refusal:
            raise self.refusal
        self.opened[session] = request

    def feed(self, session: str, piece: PromptPiece) -> None:
        self.fed.setdefault(session, []).append(piece)

    def cancel(self, session: str) -> None:
        self.cancelled.append(session)

    def state(self) -> EngineState:
        return EngineState(10, 7, 3, 2, 1)

    def close(self) -> None:
        pass


class Stage1:
    """The stages before: a FIFO, and chunks of one prompt."""

    def __init__(self, stage: Stage3, name: str, prompt: Prompt) -> None:
        self.name = name
        self.prompt = prompt
        self.reply = Recorded()
        self.replies: list[Recorded] = []
        self._stage = stage
        self._path = stage.settings.credits_directory / name
        os.mkfifo(self._path)
        self.fifo = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._credits = ""

    def send(self, index: int | None, reply: Recorded | None = None, **changes: Any) -> Recorded:
        header = Header(self.name, index, time.monotonic(), None, None, 0, False, None, "")
        empty = Chunk(
            header=replace(header, **{k: v for k, v in changes.items() if k in Header.__dataclass_fields__}),
            request_id=f"request {self.name}",
            token_ids=np.zeros(0, np.int32),
            positions=np.zeros((3, 0), np.int32),
            features=torch.zeros(0, 1, 8),
            encode_seconds=0.25,
            arrived=time.monotonic(),
            cancelled=False,
        )
        chunk = replace(empty, **{k: v for k, v in changes.items() if k in Chunk.__dataclass_fields__})
        reply = reply or Recorded()
        self.replies.append(reply)
        self._stage.inbox.put(ChunkArrived(chunk, reply))
        return reply

    def open(self, *, stream: bool = True, progress: bool = False, cache_salt: str = "", **sampling: Any) -> Recorded:
        sampling = {"temperature": 0, "ignore_eos": True, "return_token_ids": True, **sampling}
        return self.send(0, self.reply, open=Open(stream, progress, json.dumps(sampling), cache_salt))

    def plan(self) -> Recorded:
        tokens, visual = len(self.prompt.token_ids), int(self.prompt.is_visual.sum())
        plan = Plan(tokens, visual, self.prompt.next_position, [{"kind": "video"}], self.prompt.digests)
        return self.send(1, plan=plan, token_ids=self.prompt.token_ids, positions=self.prompt.positions)

    def data(self, index: int, piece: PromptPiece) -> Recorded:
        seconds = {"plan": 1.5, "decode": 2.5, "waited": 0.5} if piece.last else None
        return self.send(
            index,
            begin=piece.begin,
            last=piece.last,
            seconds=seconds,
            token_ids=piece.token_ids,
            positions=piece.positions,
            features=piece.rows[None],
        )

    def everything(self, *cuts: int, order: Callable[[list[int]], list[int]] = list, **opening: Any) -> Recorded:
        self.open(**opening)
        self.plan()
        pieces = self.prompt.pieces(*cuts)
        for n in order(list(range(len(pieces)))):
            self.data(2 + n, pieces[n])
        return self.reply

    @property
    def credits(self) -> str:
        """All that stage 3 has written so far."""
        with contextlib.suppress(BlockingIOError):
            self._credits += os.read(self.fifo, 1000).decode()
        return self._credits

    def go_away(self) -> None:
        os.close(self.fifo)
        self._path.unlink()


class Stage3:
    """Sessions in front of an engine."""

    def __init__(self, checkpoint: Path, settings: Settings, make_engine: Callable[[Settings, Inbox], Engine]) -> None:
        self.settings = settings
        self.inbox: Inbox = queue.SimpleQueue()
        self.engine = make_engine(settings, self.inbox)
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        services = Services(
            engine=self.engine,
            config=read_model_config(checkpoint),
            vocabulary=Vocabulary(self.tokenizer),
            defaults=read_generation_config(checkpoint, settings.default_max_tokens).defaults,
            settings=settings,
        )
        self.sessions = Sessions(services, self.inbox)
        self._checkpoint = checkpoint
        self._count = 0

    def stage_1(self, prompt: Prompt | None = None) -> Stage1:
        self._count += 1
        return Stage1(self, f"{self._count:032x}", prompt or make_prompt(self._checkpoint, 7, greedy_tokens=32))

    def speak(self, stage_1: Stage1, *events: Any) -> None:
        for event in events:
            self.inbox.put(EngineSpoke(stage_1.name, event))

    def settle(self) -> dict[str, Any]:
        """Returns the engine's state when all that was sent is handled."""
        reply = Recorded()
        self.inbox.put(StateAsked(reply))
        wait(lambda: reply.ends)
        return reply.usage

    def stop(self, request_id: str) -> str:
        reply = Recorded()
        self.inbox.put(StopAsked(request_id, reply))
        wait(lambda: reply.ends)
        return reply.sent[-1].finish_reason


def wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


@pytest.fixture
def stage_3(checkpoint: Path, tmp_path: Path) -> Iterator[Callable[..., Stage3]]:
    """Starts stages that end with the test, with the real engine or (scripted=True) one that the test plays."""
    started: list[Stage3] = []

    def start(*, scripted: bool = False, **changes: Any) -> Stage3:
        settings = make_settings(checkpoint, credits_directory=tmp_path, **changes)

        def make_engine(settings: Settings, inbox: Inbox) -> Engine:
            if scripted:
                return ScriptedEngine()
            return create_engine(settings, lambda session, event: inbox.put(EngineSpoke(session, event)))

        started.append(Stage3(checkpoint, settings, make_engine))
        return started[-1]

    yield start
    for stage in started:
        stage.sessions.close()
        stage.engine.close()


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
    stage.speak(failed, Admitted(), Failed("internal: the engine failed: RuntimeError: x"))
    wait(lambda: failed.reply.ends)
    assert failed.reply.error == "internal: the engine failed: RuntimeError: x"
    assert failed.credits == "=0\n++++."
    stage.engine.refusal = RequestError("resource_exhausted", "2 requests are waiting")
    refused.everything()
    wait(lambda: refused.reply.ends)
    assert refused.reply.error == "resource_exhausted: 2 requests are waiting"
    assert refused.credits == "."


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


def test_a_client_that_cannot_be_told_harms_nobody(stage_3: Callable[..., Stage3]) -> None:
    class Broken(Recorded):
        def send(self, response: Response, *, final: bool = False) -> None:
            raise RuntimeError("the client is gone")

        def fail(self, message: str) -> None:
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


def test_the_engine_is_told_whose_request_it_is(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3(scripted=True)
    for salt in ("alice", ""):
        client = stage.stage_1()
        client.open(cache_salt=salt)
        client.plan()
        stage.settle()
        assert stage.engine.opened[client.name].cache_salt == salt


def test_cached_tokens_are_the_owner_s_own(stage_3: Callable[..., Stage3]) -> None:
    stage = stage_3()
    cached = []
    for salt in ("alice", "bob", "alice"):
        client = stage.stage_1()
        reply = client.everything(cache_salt=salt, max_tokens=2)
        wait(lambda reply=reply: reply.ends)
        cached.append(reply.usage["cached_tokens"])
    assert cached == [0, 0, len(client.prompt.token_ids) // 16 * 16]
