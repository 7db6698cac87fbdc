"""The engine: the same tokens in any company, limits, failures, and memory that comes back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import RequestError
from engines.protocol import EngineState
from engines.pytorch import prefill_cost
from engines.pytorch.prompt import Prompt as EnginePrompt
from engines.pytorch.prompt import PromptSpan
from engines.sampling_parameters import SamplingParameters
from tests.support.harness import Answer, Harness, greedy, make_prompt, make_settings

Start = Callable[..., Harness]


@pytest.mark.parametrize("frames", [0, 6])
def test_greedy_tokens_are_those_of_transformers(any_checkpoint: Path, harness: Start, frames: int) -> None:
    prompt = make_prompt(any_checkpoint, 7, frames=frames, greedy_tokens=32)
    engine = harness(any_checkpoint, block_size=4, max_step_tokens=70)
    assert engine.ask(prompt, greedy(32), 9, 40).ids == list(prompt.greedy)
    engine.wait_until_free()


@pytest.mark.parametrize("ordinary_context", [prefill_cost.ORDINARY_CONTEXT, 8])
def test_concurrent_requests_get_the_tokens_that_they_get_alone(
    checkpoint: Path, harness: Start, monkeypatch: pytest.MonkeyPatch, ordinary_context: int
) -> None:
    """Also where contexts are so long that little of a prompt is in a step."""
    monkeypatch.setattr(prefill_cost, "ORDINARY_CONTEXT", ordinary_context)
    prompts = [make_prompt(checkpoint, n, frames=2 * (n % 4), words=3 + 9 * n, greedy_tokens=24) for n in range(8)]
    engine = harness(max_step_tokens=48, max_batch=6, kv_cache_tokens=900)
    answers: dict[int, Answer] = {}
    for n in random.Random(4).sample(range(8), 8):
        answers[n] = engine.start(str(n), prompts[n], greedy(4 + 2 * n + n % 3), 5 + n)
    for n, answer in answers.items():
        assert answer.over.wait(60)
        assert answer.ids == list(prompts[n].greedy[: 4 + 2 * n + n % 3])
        assert (answer.finish_reason, answer.prefilled) == ("length", len(prompts[n].token_ids) - answer.held)
    engine.wait_until_free()


def test_a_seed_gives_the_same_answer_alone_and_in_company(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 1)
    sampling = SamplingParameters(max_tokens=40, temperature=1.3, top_p=0.9, seed=42, ignore_eos=True)
    alone = harness().ask(prompt, sampling).ids
    engine = harness()
    others = [
        engine.start(
            str(n), make_prompt(checkpoint, n), SamplingParameters(max_tokens=50, temperature=1.0, top_k=n + 2)
        )
        for n in range(3)
    ]
    assert engine.ask(prompt, sampling, 30).ids == alone
    assert all(other.over.wait(60) for other in others)
    different = SamplingParameters(max_tokens=40, temperature=1.3, top_p=0.9, seed=43, ignore_eos=True)
    assert engine.ask(prompt, different).ids != alone


def test_a_stop_token_ends_the_answer_and_comes_with_it(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    stop = prompt.greedy[9]
    first = prompt.greedy.index(stop)
    engine = harness()
    answer = engine.ask(prompt, greedy(32, stop_token_ids=(stop,)))
    assert (answer.ids, answer.finish_reason) == (list(prompt.greedy[: first + 1]), "stop")
    answer = engine.ask(prompt, greedy(32, stop_token_ids=(stop,), min_tokens=first + 2))
    assert answer.ids[:first] == list(prompt.greedy[:first])
    assert stop not in answer.ids[: first + 2]


def test_eos_of_the_checkpoint_ends_an_answer(
    checkpoint: Path, harness: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    eos = prompt.greedy[4]
    engine = harness()
    monkeypatch.setattr(engine.engine._admission, "_eos_token_ids", (eos,))
    answer = engine.ask(prompt, SamplingParameters(max_tokens=32))
    assert (answer.ids[-1], answer.finish_reason) == (eos, "stop")
    assert len(engine.ask(prompt, greedy(32)).ids) == 32


def test_an_answer_is_cut_to_what_context_and_cache_hold(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    tokens = len(prompt.token_ids)
    answer = harness(context_length=tokens + 5).ask(prompt, greedy(32))
    assert (answer.ids, answer.finish_reason) == (list(prompt.greedy[:5]), "length")
    blocks = -(-tokens // 4) + 1
    engine = harness(block_size=4, kv_cache_tokens=blocks * 4)
    answer = engine.ask(prompt, greedy(32))
    # The last token is never cached.
    assert answer.ids == list(prompt.greedy[: blocks * 4 - tokens + 1])
    engine.wait_until_free()


def test_a_prompt_that_can_never_fit_is_refused_with_the_numbers(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 7)
    tokens = len(prompt.token_ids)
    for changes in ({"context_length": tokens}, {"kv_cache_tokens": 32}):
        engine = harness(**changes)
        with pytest.raises(RequestError, match=f"invalid_argument: the prompt has {tokens} tokens"):
            engine.open("big", prompt, greedy(4))
        engine.wait_until_free()


def test_who_does_not_fit_waits_in_order_and_a_full_queue_refuses(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    per_session = -(-(len(prompt.token_ids) + 7) // 16)
    engine = harness(kv_cache_tokens=(2 * per_session + 1) * 16, max_waiting=2)
    answers = [engine.open(str(n), prompt, greedy(8)) for n in range(4)]
    assert [answer.admitted for answer in answers] == [True, True, False, False]
    assert engine.engine.state() == EngineState(2 * per_session + 1, 1, 0, 2, 2)
    with pytest.raises(RequestError, match=r"resource_exhausted: 2 requests are waiting .*; retry in \d+ s$"):
        engine.open("4", prompt, greedy(8))
    assert [answer.places for answer in answers] == [[], [], [1], [2]]
    # A small one behind them must not overtake: nobody starves.
    engine.engine.cancel("3")
    small = engine.open("small", make_prompt(checkpoint, 1, frames=0, words=1), greedy(1))
    assert not small.admitted
    assert small.places == [2]
    for n in (0, 1, 2):
        for piece in prompt.pieces():
            engine.engine.feed(str(n), piece)
        assert answers[n].over.wait(60)
        assert answers[n].ids == list(prompt.greedy[:8])
    assert small.admitted
    assert small.places == [2, 1]
    engine.engine.cancel("small")
    engine.wait_until_free()
    assert not answers[3].admitted


def test_what_a_prompt_begins_with_is_computed_once(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    tokens = len(prompt.token_ids)
    engine = harness()
    assert engine.ask(prompt, greedy(32)).held == 0
    again = engine.ask(prompt, greedy(32), 20)
    assert (again.ids, again.held, again.prefilled) == (list(prompt.greedy), tokens - 1, 1)
    engine.wait_until_free()
    assert engine.engine.state().blocks_cached == (tokens + 31) // 16
    off = harness(prefix_cache=False)
    assert [off.ask(prompt, greedy(4)).held for _ in range(2)] == [0, 0]


def test_an_answer_is_held_for_the_prompt_that_goes_on_from_it(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    said = np.array(prompt.greedy[:24], np.int32)
    count = len(said)
    longer = replace(
        prompt,
        token_ids=np.concatenate([prompt.token_ids, said, prompt.token_ids[:9]]),
        positions=np.hstack([prompt.positions, prompt.next_position + np.tile(np.arange(count + 9), (3, 1))]),
        is_visual=np.append(prompt.is_visual, np.zeros(count + 9, bool)),
    )
    engine = harness()
    engine.ask(prompt, greedy(32))
    follow_up = engine.ask(longer, greedy(8))
    assert follow_up.held >= (len(prompt.token_ids) + count) // 16 * 16
    assert follow_up.ids == harness().ask(longer, greedy(8)).ids


def test_blocks_are_shared_as_they_fill(checkpoint: Path, harness: Start) -> None:
    """A second request takes what the first has computed by then, and computes the rest itself."""
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    engine = harness()
    first = engine.open("first", prompt, greedy(32))
    early, late = prompt.pieces(70)
    engine.engine.feed("first", early)
    while first.prefilled < 70:
        engine.events.get(timeout=20)
    second = engine.start("second", prompt, greedy(32))
    assert second.over.wait(60)
    assert (second.held, second.ids) == (64, list(prompt.greedy))
    engine.engine.feed("first", late)
    assert first.over.wait(60)
    assert first.ids == list(prompt.greedy)
    engine.wait_until_free()


def test_a_poisoned_session_fails_alone(checkpoint: Path, harness: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    bad = make_prompt(checkpoint, 3, frames=0)
    engine = harness()
    compute = engine.engine._runner.model.__call__

    def failing(batch: Any, cache: Any) -> torch.Tensor:
        ids = batch.token_ids.tolist()
        if any(ids[n : n + 8] == bad.token_ids[8:16].tolist() for n in range(len(ids))):
            raise RuntimeError("device on fire")
        return compute(batch, cache)

    monkeypatch.setattr(engine.engine._runner, "model", failing)
    good = [engine.start(str(n), prompt, greedy(32)) for n in range(3)]
    poisoned = engine.start("bad", bad, greedy(4))
    assert poisoned.over.wait(60)
    assert poisoned.error == "internal: the engine failed: RuntimeError: device on fire"
    for answer in good:
        assert answer.over.wait(60)
        assert answer.ids == list(prompt.greedy)
    engine.wait_until_free()


def test_prompts_take_turns(checkpoint: Path, harness: Start) -> None:
    """A long newcomer shares the steps with short requests: they are served while it prefills."""
    long, short = make_prompt(checkpoint, 2, frames=0, words=200), make_prompt(checkpoint, 1, frames=0, words=2)
    engine = harness(max_step_tokens=20, max_batch=8)
    long_answer = engine.start("long", long, greedy(1))
    short_answer = engine.start("short", short, greedy(4))
    assert short_answer.over.wait(60)
    assert not long_answer.over.is_set()
    assert long_answer.over.wait(60)
    engine.wait_until_free()


def test_penalties_see_the_prompt_and_the_answer(checkpoint: Path, harness: Start) -> None:
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    engine = harness()
    assert len(set(prompt.greedy)) < 32
    once = engine.ask(prompt, greedy(32, presence_penalty=2.0, frequency_penalty=2.0, repetition_penalty=10.0)).ids
    assert len(set(once)) == 32
    assert not set(once) & set(prompt.token_ids.tolist())


def test_pieces_may_come_while_a_step_is_prepared(
    checkpoint: Path, harness: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece is fed by another thread exactly while the engine reads the pieces before it."""
    prompt = make_prompt(checkpoint, 7, greedy_tokens=32)
    pieces = prompt.pieces(20, 40)
    engine = harness()
    read = EnginePrompt.read
    feeding = []

    def interrupted(self: EnginePrompt, tokens: int) -> Iterator[PromptSpan]:
        for span in read(self, tokens):
            if len(feeding) < 2:
                feeding.append(threading.Thread(target=engine.engine.feed, args=("s", pieces[1 + len(feeding)])))
                feeding[-1].start()
                feeding[-1].join(timeout=0.2)
            yield span

    monkeypatch.setattr(EnginePrompt, "read", interrupted)
    answer = engine.open("s", prompt, greedy(32))
    engine.engine.feed("s", pieces[0])
    assert answer.over.wait(60)
    assert (answer.error, answer.ids) == ("", list(prompt.greedy))


ACTIONS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["feed", "feed", "feed", "cancel"])), max_size=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=ACTIONS,
    sizes=st.lists(st.integers(1, 60), min_size=6, max_size=6),
    lengths=st.lists(st.integers(1, 12), min_size=6, max_size=6),
    block_size=st.sampled_from([1, 3, 16]),
    max_step_tokens=st.integers(4, 90),
    cache_tokens=st.integers(150, 500),
)
def test_any_schedule_gives_the_same_tokens_and_leaks_nothing(
    checkpoint: Path,
    actions: list[tuple[int, str]],
    sizes: list[int],
    lengths: list[int],
    block_size: int,
    max_step_tokens: int,
    cache_tokens: int,
) -> None:
    prompts = [make_prompt(checkpoint, n, frames=2 * (n % 3), words=2 + 2 * n, greedy_tokens=12) for n in range(6)]
    engine = Harness(
        make_settings(
            checkpoint,
            block_size=block_size,
            max_step_tokens=max_step_tokens,
            max_batch=3,
            kv_cache_tokens=cache_tokens,
        )
    )
    pieces = {n: iter(prompts[n].pieces(*range(size, len(prompts[n].token_ids), size))) for n, size in enumerate(sizes)}
    answers: dict[int, Answer] = {}
    cancelled = set()
    for n, action in actions:
        if n not in answers:
            answers[n] = engine.open(str(n), prompts[n], greedy(lengths[n]))
        elif action == "cancel":
            engine.engine.cancel(str(n))
            cancelled.add(n)
        elif (piece := next(pieces[n], None)) is not None:
            engine.engine.feed(str(n), piece)
    for n in answers:
        for piece in pieces[n]:
            engine.engine.feed(str(n), piece)
    for n, answer in answers.items():
        if n in cancelled:
            assert answer.ids == list(prompts[n].greedy[: len(answer.ids)])
        else:
            assert answer.over.wait(60)
            assert answer.ids == list(prompts[n].greedy[: lengths[n]])
    engine.wait_until_free()
    engine.engine.close()
    assert not any(thread.name == "engine" and thread is engine.engine._thread for thread in threading.enumerate())
