"""Owners in one engine: what was computed for one is used for nobody else, false features no more than true ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.errors import RequestError
from tests.support.harness import Harness, greedy, make_prompt

StartHarness = Callable[..., Harness]
BLOCK = 16


def test_a_prompt_is_held_for_its_owner_alone(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=6, greedy_tokens=8)
    for salt, held in (("alice", False), ("bob", False), ("", False), ("alice", True), ("bob", True), ("", True)):
        answer = running.ask(prompt, greedy(8), cache_salt=salt)
        assert answer.held == (len(prompt.token_ids) // BLOCK * BLOCK if held else 0), salt
        assert answer.ids == list(prompt.greedy)


def test_owners_at_once_share_nothing(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=6, frames=0, words=40, greedy_tokens=8)
    answers = [running.start(salt, prompt, greedy(8), cache_salt=salt) for salt in ("alice", "bob", "carol")]
    for answer in answers:
        assert answer.over.wait(60)
        assert (answer.held, answer.ids) == (0, list(prompt.greedy))


def test_false_features_of_one_owner_are_not_another_s(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=6, greedy_tokens=8)
    # The same digests, and the rows of something else.
    false = [replace(piece, rows=piece.rows * np.float32(-3) + 1) for piece in prompt.pieces()]
    answer = running.open("mallory", prompt, greedy(8), cache_salt="mallory")
    for piece in false:
        running.engine.feed("mallory", piece)
    assert answer.over.wait(60)
    assert answer.ids != list(prompt.greedy)
    assert running.ask(prompt, greedy(8), cache_salt="alice").ids == list(prompt.greedy)
    assert running.ask(prompt, greedy(8)).ids == list(prompt.greedy)
    # What is false stays with who told it.
    own = running.ask(prompt, greedy(8), cache_salt="mallory")
    assert (own.held, own.ids) == (len(prompt.token_ids) // BLOCK * BLOCK, answer.ids)


def test_who_fills_its_share_keeps_nobody_waiting(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(max_batch=4, max_waiting=4), make_prompt(checkpoint, seed=6, frames=0, greedy_tokens=8)
    mine = [running.open(f"mallory {n}", prompt, greedy(512), cache_salt="mallory") for n in range(4)]
    assert [answer.admitted for answer in mine] == [True, True, False, False]
    with pytest.raises(RequestError, match=r"resource_exhausted: 2 requests of this owner .*; retry in \d+ s$"):
        running.open("mallory 4", prompt, greedy(512), cache_salt="mallory")
    alice = running.start("alice", prompt, greedy(8), cache_salt="alice")
    assert alice.admitted
    assert alice.over.wait(60)
    assert alice.ids == list(prompt.greedy)
    assert running.open("everybody's", prompt, greedy(8)).admitted
    assert [answer.places for answer in mine] == [[], [], [1], [2]]
    for name in ("mallory 0", "mallory 2", "everybody's"):
        running.engine.cancel(name)
    # Blocks of a session that runs come back with the engine's next step.
    while not mine[3].admitted:
        assert running.events.get(timeout=60)
    running.engine.cancel("mallory 1")
    running.engine.cancel("mallory 3")
    running.wait_until_free()


def test_blocks_that_an_owner_s_requests_share_count_once(harness: StartHarness, checkpoint: Path) -> None:
    prompt = make_prompt(checkpoint, seed=6, frames=0, words=40, greedy_tokens=8)
    blocks = -(-(len(prompt.token_ids) + 7) // BLOCK)
    running = harness(kv_cache_tokens=2 * (blocks + 2) * BLOCK)
    assert running.ask(prompt, greedy(8), cache_salt="alice").ids == list(prompt.greedy)
    answers = [running.open(str(n), prompt, greedy(8), cache_salt="alice") for n in range(2)]
    assert [answer.admitted for answer in answers] == [True, True]
    for n in range(2):
        running.engine.cancel(str(n))
    running.wait_until_free()
