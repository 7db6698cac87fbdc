"""Owners in one engine: what was computed for one is used for nobody else, false features no more than true ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from decoder.harness import Harness, greedy, make_prompt

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
