"""Stages 1 and 3 around a session: chunks and FIFOs on one side, replies and a scripted or the real engine behind."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from engines.checkpoint import read_generation_config, read_model_config
from engines.errors import RequestError
from engines.protocol import Engine, EngineState, PromptPiece, Request
from engines.settings import Settings
from sessions.chunk import Chunk, Header, Open, Plan
from sessions.detokenizer import Vocabulary
from sessions.inbox import ChunkArrived, EngineSpoke, Inbox, Sessions, StateAsked, StopAsked
from sessions.reply import Response
from sessions.session import Services
from tests.support.harness import Prompt, make_prompt

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

    def fail(self, error: RequestError) -> None:
        assert not self.ends
        self.error = str(error)
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
        header = Header(self.name, index, time.monotonic(), None, None, 0, False, None, None)
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
