"""`make fuzz-engine`: random schedules through the PyTorch engine, step by step, on a tiny model.

Requests that begin alike arrive, are fed in pieces and are cancelled while a small KV cache shares, keeps and evicts.
Whatever happens, each must get the tokens that it gets alone, everyone who can be advanced must be in turn, and in the
end every block must be back. A schedule is named by its seed and runs the same way again.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from build.assemble.checkpoint_factory import Shape, make_checkpoint
from engines.checkpoint import ModelConfig, read_model_config
from engines.protocol import Event, Listener, PromptPiece, Request
from engines.pytorch.engine import PyTorchEngine
from engines.pytorch.factory import build_engine
from engines.pytorch.model.attention import PagedAttention
from engines.pytorch.model.registry import load_weights
from engines.pytorch.model.table_attention import table_attention
from engines.pytorch.model.text_model import TextModel
from tests.support.harness import Answer, greedy, make_settings

CPU = torch.device("cpu")
SHAPE = Shape(layers=2, heads=2, kv_heads=1, head_dim=16, hidden=32, intermediate=64, deepstack_levels=(0, 1))
MOST_TOKENS = 10
"""The tokens of an answer."""
BY_TABLE_EVERY = 50
"""Schedules. Their decode steps are a GPU's, in Triton's interpreter, a hundred times slower than the others'."""


@dataclass(frozen=True)
class Asked:
    """A prompt as an engine is fed it: tokens, positions [3, tokens], rows [visual tokens, width], digests."""

    token_ids: np.ndarray
    positions: np.ndarray
    rows: np.ndarray
    visual: np.ndarray
    digests: tuple[str, ...]

    def request(self, max_tokens: int, cache_salt: str = "") -> Request:
        next_position = int(self.positions.max()) + 1
        return Request(self.token_ids, self.positions, self.digests, next_position, greedy(max_tokens), cache_salt)

    def piece(self, begin: int, end: int) -> PromptPiece:
        first, stop = int(self.visual[:begin].sum()), int(self.visual[:end].sum())
        last, rows = end == len(self.token_ids), torch.from_numpy(self.rows[first:stop])
        return PromptPiece(begin, self.token_ids[begin:end], self.positions[:, begin:end], rows, last)


class Model:
    """A tiny checkpoint, prompts that begin alike, and what each is answered alone."""

    def __init__(self, folder: Path) -> None:
        make_checkpoint(folder, shape=SHAPE)
        self._folder = folder
        self.config: ModelConfig = read_model_config(folder)
        weights = load_weights(folder, self.config, CPU, torch.float32)
        self._model = TextModel(self.config, weights, attention=PagedAttention(table_attention))
        self.asked = self._ask()

    def engine(self, listener: Listener, lag: int, *, by_table: bool = False, **settings: object) -> PyTorchEngine:
        """An engine whose steps the caller has computed."""
        chosen = make_settings(self._folder, **settings)
        engine = build_engine(
            chosen, self.config, self._model, listener, CPU, torch.float32, lag=lag, by_table=by_table
        )
        for states in (*engine._runner.cache.keys, *engine._runner.cache.values):
            # Whoever reads what was never written is found out.
            states.memory[0].fill_(float("nan"))
        return engine

    @functools.cache  # noqa: B019 - there is one model
    def alone(self, number: int) -> tuple[int, ...]:
        """The answer to prompt `number` in an empty engine without a prefix cache."""
        answer, asked = Answer(), self.asked[number]
        engine = self.engine(
            lambda _, event: answer(event),
            0,
            kv_cache_tokens=512,
            prefix_cache=False,
        )
        engine.open("alone", asked.request(MOST_TOKENS))
        engine.feed("alone", asked.piece(0, len(asked.token_ids)))
        while engine.step():
            pass
        return tuple(answer.ids)

    def _ask(self) -> list[Asked]:
        """Three videos and a text; questions about each, alike at first; follow-ups that repeat an answer."""
        draw = random.Random(7)
        words = [[draw.randrange(50, 250) for _ in range(draw.randrange(1, 14))] for _ in range(8)]
        opening = [draw.randrange(50, 250) for _ in range(6)]
        beginnings: list[list[int | str]] = [
            [*opening, "a" * 32, *words[0], "b" * 32, *words[1]],
            # The same words about another picture, and the same pictures in another order.
            [*opening, "a" * 32, *words[0], "c" * 32, *words[1]],
            [*opening, "b" * 32, *words[0], "a" * 32, *words[1]],
            [*opening, *words[0], *words[1], *words[2]],
        ]
        parts = [[*beginning, *question] for beginning in beginnings for question in words[3:6]]
        self.asked = [self._write(part) for part in parts]
        follow_ups = [[*part, *self.alone(number), *words[6]] for number, part in enumerate(parts)]
        return self.asked + [self._write(part) for part in follow_ups]

    def _write(self, parts: list[int | str]) -> Asked:
        """Words are token ids; pictures of 2 x 3 tokens are digests."""
        token_ids: list[int] = []
        positions: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        position = 0
        for part in parts:
            if isinstance(part, int):
                token_ids.append(part)
                positions.append(np.full((3, 1), position))
                position += 1
                continue
            token_ids += [self.config.visual_token_ids[1]] * 6
            positions.append(position + np.indices((1, 2, 3)).reshape(3, -1))
            rows.append(np.random.default_rng(ord(part[0])).normal(size=(6, self.config.row_width)))
            position += 3
        ids = np.array(token_ids, np.int32)
        return Asked(
            ids,
            np.hstack(positions).astype(np.int32),
            np.concatenate([np.zeros((0, self.config.row_width)), *rows]).astype(np.float32),
            np.isin(ids, self.config.visual_token_ids),
            tuple(part for part in parts if isinstance(part, str)),
        )


class Schedule:
    """One random history of one engine."""

    def __init__(self, model: Model, seed: int, *, by_table: bool = False) -> None:
        self._model = model
        self._draw = draw = random.Random(seed)
        block_size = draw.choice([1, 3, 4, 16])
        self._requests = {
            str(n): (draw.randrange(len(model.asked)), draw.randint(1, MOST_TOKENS)) for n in range(draw.randint(1, 8))
        }
        owners = draw.choice([[""], ["alice"], ["", "alice", "bob"]])
        self._owners = {session: draw.choice(owners) for session in self._requests}
        longest = max(len(model.asked[number].token_ids) + most for number, most in self._requests.values())
        max_batch = draw.randint(1, 4)
        self._engine = model.engine(
            self._hear,
            draw.randint(0, 1),
            by_table=by_table,
            # From one that holds a single request to one that keeps them all.
            kv_cache_tokens=-(-longest // block_size) * block_size * draw.randint(1, 5),
            block_size=block_size,
            max_batch=max_batch,
            max_step_tokens=max_batch + draw.choice([1, 7, 40, 200]),
            prefix_cache=draw.random() < 0.9,
            owner_share=draw.choice([0.1, 0.5, 1.0]),
        )
        self._engine._scheduler.prefill_share = share = draw.choice([1, 7, 256])
        # A step that is computed is told with the next one. With a share for everyone, nobody waits for a turn.
        self._most_idle_steps = 1 if share == 1 else max_batch
        self._idle_steps: dict[str, int] = {}
        self._answers: dict[str, Answer] = {}
        self._fed: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._order: list[str] = []

    def run(self) -> int:
        """Runs it to its end, and returns how many tokens of prompts were shared. Raises AssertionError."""
        arriving = list(self._requests)
        while arriving or any(not self._is_over(session) for session in self._answers):
            action = self._draw.random()
            live = [session for session in self._answers if not self._is_over(session)]
            if arriving and (action < 0.25 or not live):
                self._open(arriving.pop(0))
            elif action < 0.65:
                self._feed(self._draw.choice(live))
            elif action < 0.68:
                self._cancel(self._draw.choice(live))
            else:
                self._step()
        while self._engine.step():
            pass
        self._check_end()
        return sum(answer.held for answer in self._answers.values())

    def _open(self, session: str) -> None:
        number, most = self._requests[session]
        self._answers[session] = Answer()
        self._fed[session] = 0
        self._order.append(session)
        self._engine.open(session, self._model.asked[number].request(most, self._owners[session]))

    def _feed(self, session: str) -> None:
        asked, answer = self._model.asked[self._requests[session][0]], self._answers[session]
        # Stage 1 sends nothing before there is room, and little of what is held.
        if not answer.admitted or self._fed[session] == len(asked.token_ids):
            return
        begin = max(self._fed[session], answer.held - self._draw.randint(0, min(5, answer.held)))
        end = min(len(asked.token_ids), begin + self._draw.randint(1, 60))
        self._engine.feed(session, asked.piece(begin, end))
        self._fed[session] = end

    def _cancel(self, session: str) -> None:
        self._engine.cancel(session)
        self._cancelled.add(session)

    def _step(self) -> None:
        """Whoever has something to compute advances when it is its turn."""
        able = {session: self._progress(session) for session in self._answers if self._is_able(session)}
        self._engine.step()
        idle = (session for session, before in able.items() if self._progress(session) == before)
        self._idle_steps = {session: self._idle_steps.get(session, 0) + 1 for session in idle}
        for session, steps in self._idle_steps.items():
            assert steps <= self._most_idle_steps, f"{session} did not advance"

    def _is_able(self, session: str) -> bool:
        answer = self._answers[session]
        prefilled = answer.held + answer.prefilled
        waits_for_piece = prefilled >= self._fed[session] and not self._is_prefilled(session)
        return answer.admitted and not waits_for_piece and not self._is_over(session)

    def _is_prefilled(self, session: str) -> bool:
        answer = self._answers[session]
        return answer.held + answer.prefilled == len(self._model.asked[self._requests[session][0]].token_ids)

    def _progress(self, session: str) -> int:
        return self._answers[session].prefilled + len(self._answers[session].ids)

    def _is_over(self, session: str) -> bool:
        return session in self._cancelled or self._answers[session].over.is_set()

    def _hear(self, session: str, event: Event) -> None:
        answer = self._answers[session]
        was_admitted = answer.admitted
        answer(event)
        assert not answer.error, answer.error
        if answer.admitted and not was_admitted:
            own = [s for s in self._order if self._owners[s] == self._owners[session]]
            waiting = [s for s in own if s not in self._cancelled and not self._answers[s].admitted]
            assert not waiting or self._order.index(session) < self._order.index(waiting[0]), "the queue was jumped"

    def _check_end(self) -> None:
        for session, answer in self._answers.items():
            number, most = self._requests[session]
            expected = list(self._model.alone(number)[:most])
            got = expected[: len(answer.ids)] if session in self._cancelled else expected
            assert answer.ids == got, f"request {session}, prompt {number}: {answer.ids} instead of {expected}"
            assert answer.held < len(self._model.asked[number].token_ids)
        state = self._engine.state()
        assert (state.blocks_free, state.sessions, state.waiting) == (state.blocks_total, 0, 0), state
        # A cache that is asked for everything gives everything: nothing that it keeps is lost.
        number, _ = self._requests["0"]
        self._answers["everything"], self._owners["everything"] = Answer(), ""
        self._engine.open("everything", self._model.asked[number].request(10_000))
        assert self._answers["everything"].admitted
        assert self._engine.state().blocks_free == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-engine", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="how many schedules (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first schedule's (default: 0)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started, shared = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-engine-") as folder:
        model = Model(Path(folder))
        for seed in range(arguments.seed, arguments.seed + arguments.cases):
            try:
                shared += Schedule(model, seed, by_table=seed % BY_TABLE_EVERY == 0).run()
            except AssertionError as error:
                print(f"schedule {seed}: {error}")
                return 1
    seconds = time.monotonic() - started
    which = f"{arguments.cases} schedules from seed {arguments.seed} on"
    print(f"{which}: every answer as alone; {shared} tokens shared; {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
