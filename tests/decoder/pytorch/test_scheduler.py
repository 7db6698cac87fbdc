"""The steps that the scheduler hands out: how much of each prompt is in one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engines.fair_queue import FairQueue
from engines.protocol import Request
from engines.pytorch.cache.block_keys import BlockKeys
from engines.pytorch.cache.block_manager import BlockManager
from engines.pytorch.cache.prefix_cache import PrefixCache
from engines.pytorch.prompt import PromptSpan
from engines.pytorch.scheduler import Scheduler
from engines.pytorch.sequence import Sequence
from tests.support.harness import greedy

BLOCK = 16
STEP = 1024
ORDINARY = 4096
"""Prompts of this length are prefilled as if attention cost nothing."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Prefilled:
    """A part of a prompt in a step."""

    session: str
    cached: int
    tokens: int


class Steps:
    """A scheduler without a model: what it hands out counts as computed."""

    def __init__(self, max_step_tokens: int = STEP) -> None:
        blocks = 300_000 // BLOCK
        self.scheduler = Scheduler(
            FairQueue(places=64, blocks=blocks, owner_share=1, max_waiting=64),
            PrefixCache(BlockManager(blocks), BLOCK, enabled=False),
            tables=None,
            block_size=BLOCK,
            max_step_tokens=max_step_tokens,
            device=CPU,
        )

    def add(self, session: str, prompt_tokens: int, max_tokens: int = 1) -> None:
        """Its whole prompt has come."""
        token_ids, positions = np.zeros(prompt_tokens, np.int32), np.zeros((3, prompt_tokens), np.int32)
        request = Request(token_ids, positions, (), prompt_tokens, greedy(max_tokens))
        keys = BlockKeys(request, (), max_tokens, BLOCK)
        sequence = Sequence(
            session, request, max_tokens=max_tokens, stop_token_ids=frozenset(), counts=None, block_keys=keys
        )
        nothing = torch.zeros(0, dtype=torch.long)
        ids, places = torch.from_numpy(token_ids), torch.from_numpy(positions)
        sequence.prompt.append(PromptSpan(0, ids, places, nothing, torch.zeros(0, 1)), 0)
        self.scheduler.queue.add(sequence, session)
        assert self.scheduler.admit() is not None

    def step(self) -> list[Prefilled]:
        work = self.scheduler.next_step()
        assert sum(item.tokens for item in work) <= self.scheduler._max_step_tokens
        assert all(item.tokens > 0 for item in work)
        parts = [Prefilled(item.sequence.session, item.sequence.cached, item.tokens) for item in work if item.prefill]
        for item in work:
            item.sequence.advance(item.tokens, torch.zeros(1, dtype=torch.long) if item.yields_token else None)
        self.scheduler.end_turns(work)
        return parts

    def sizes(self, session: str) -> list[int]:
        """How much of its prompt is in each step from now on, until it is prefilled; 0 where others have their turn."""
        sizes = []
        while any(sequence.session == session and sequence.prefilling for sequence in self.scheduler.running):
            sizes.append(sum(part.tokens for part in self.step() if part.session == session))
        return sizes


def attended(parts: list[Prefilled]) -> int:
    return sum(part.tokens * (part.cached + part.tokens) for part in parts)


def test_a_long_prompt_alone_fills_the_steps() -> None:
    steps = Steps()
    steps.add("long", 65_000)
    assert steps.sizes("long") == [STEP] * 63 + [65_000 - 63 * STEP]


def test_attention_of_a_step_is_bounded_while_others_decode() -> None:
    steps = Steps()
    steps.add("decodes", 4, max_tokens=5000)
    steps.step()
    steps.add("long", 65_000)
    done = 0
    while done < 65_000:
        parts = steps.step()
        assert [part.session for part in parts] == ["long"]
        assert attended(parts) <= STEP * ORDINARY
        done += parts[0].tokens
        # No smaller than it has to be.
        assert done == 65_000 or parts[0].tokens == STEP - 1 or attended(parts) > 0.9 * STEP * ORDINARY


def test_attention_of_a_step_is_bounded_for_many_long_prompts() -> None:
    steps = Steps()
    for n in range(4):
        steps.add(f"long {n}", 60_000 + n)
    idle = dict.fromkeys((f"long {n}" for n in range(4)), 0)
    while all(sequence.prefilling for sequence in steps.scheduler.running):
        parts = steps.step()
        assert attended(parts) <= STEP * ORDINARY
        advanced = {part.session for part in parts}
        idle = {session: 0 if session in advanced else count + 1 for session, count in idle.items()}
        assert max(idle.values()) <= 3, "they take turns"


def test_a_short_prompt_waits_a_turn_of_each_long_one() -> None:
    steps = Steps()
    for n in range(3):
        steps.add(f"long {n}", 60_000)
    for _ in range(1500):
        steps.step()
    assert all(sequence.cached > 30_000 for sequence in steps.scheduler.running)
    steps.add("short", ORDINARY)
    sizes = steps.sizes("short")
    assert sum(sizes) == ORDINARY
    # Nearly a whole step in every fourth.
    assert len(sizes) <= 4 * (ORDINARY // STEP + 1)


def test_ordinary_prompts_fill_the_steps_in_company() -> None:
    steps = Steps()
    steps.add("decodes", 4, max_tokens=100)
    steps.step()
    steps.add("alone in line", ORDINARY)
    assert steps.sizes("alone in line") == [STEP - 1] * 4 + [4]
    for n in range(4):
        steps.add(f"ordinary {n}", ORDINARY)
    # Shares of 256 at least: three prompts in a step, beside a token that is decoded.
    assert steps.sizes("ordinary 0") == [341] * 12 + [4]


def test_a_large_step_takes_an_ordinary_prompt_whole() -> None:
    steps = Steps(max_step_tokens=8192)
    steps.add("one", ORDINARY)
    steps.add("other", ORDINARY)
    assert [part.tokens for part in steps.step()] == [ORDINARY, ORDINARY]


def test_a_block_goes_on_however_deep() -> None:
    steps = Steps(max_step_tokens=65)
    steps.add("decodes", 4, max_tokens=10_000)
    steps.step()
    steps.add("long", 65_000)
    sizes = steps.sizes("long")
    assert sum(sizes) == 65_000
    assert min(sizes[:-1]) == BLOCK
