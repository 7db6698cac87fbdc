import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from engines.errors import RequestError
from engines.protocol import EngineState
from engines.response_format import ResponseFormat
from engines.sampling_parameters import SamplingParameters
from tests.decoder.tensorrt_llm import double
from tests.decoder.tensorrt_llm.conftest import CACHE_TOKENS
from tests.support.harness import Harness, Prompt, greedy, make_prompt, make_settings

StartHarness = Callable[..., Harness]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def cuts_between_runs(prompt: Prompt) -> list[int]:
    """Before the first visual token of every second run, as chunks of several temporal patches are cut."""
    begins = np.flatnonzero(np.diff(prompt.is_visual.astype(int)) == 1) + 1
    return begins[::2].tolist()[1:]


def test_the_double_is_handed_what_gives_the_reference_s_tokens(harness: StartHarness, checkpoint: Path) -> None:
    prompt = make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    answer = harness().ask(prompt, greedy(24), *cuts_between_runs(prompt))
    assert answer.ids == list(prompt.greedy)
    assert (answer.admitted, answer.prefilled, answer.finish_reason) == (True, len(prompt.token_ids), "length")


def test_one_handle_per_temporal_patch_or_per_piece(harness: StartHarness, checkpoint: Path, kind: str) -> None:
    prompt = make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    cuts = cuts_between_runs(prompt)
    harness().ask(prompt, greedy(4), *cuts)
    (parameters,) = double.LLM.last.requests
    assert parameters is not None
    assert len(parameters.multimodal_embedding_handles) == (5 if kind == "handles" else len(cuts) + 1)


def test_the_vision_tower_is_left_out(harness: StartHarness, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLLM_MULTIMODAL_DISAGGREGATED", raising=False)
    harness()
    assert os.environ["TLLM_MULTIMODAL_DISAGGREGATED"] == "1"
    assert double.LLM.last.encoder_disabled == (kind == "layouts")


def test_text_alone_goes_over_as_token_ids(harness: StartHarness, checkpoint: Path) -> None:
    prompt = make_prompt(checkpoint, seed=6, frames=0, greedy_tokens=16)
    answer = harness().ask(prompt, greedy(16))
    assert answer.ids == list(prompt.greedy)
    assert double.LLM.last.requests == [None]


def test_sessions_at_once_get_what_each_gets_alone(harness: StartHarness, checkpoint: Path) -> None:
    running = harness()
    prompts = [make_prompt(checkpoint, seed=seed, frames=2 * seed, greedy_tokens=12) for seed in range(4)]
    answers = [running.start(str(number), prompt, greedy(12)) for number, prompt in enumerate(prompts)]
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.over.wait(60)
        assert answer.ids == list(prompt.greedy)
    wait_until(lambda: running.engine.state() == EngineState(CACHE_TOKENS // 16, CACHE_TOKENS // 16, 0, 0, 0))


def test_handles_are_fresh_and_hashes_the_same_for_the_same_video(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    other = make_prompt(checkpoint, seed=8, frames=10, greedy_tokens=24)
    for asked in (prompt, prompt, other):
        assert running.ask(asked, greedy(24)).ids == list(asked.greedy)
    first, second, third = (parameters.multimodal_hashes for parameters in double.LLM.last.requests if parameters)
    assert first == second
    assert first != third


def test_owners_are_told_apart_by_salt_and_by_hash(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=4, greedy_tokens=8)
    for salt in ("alice", "bob", "", "alice"):
        assert running.ask(prompt, greedy(8), cache_salt=salt).ids == list(prompt.greedy)
    assert double.LLM.last.salts == ["alice", "bob", None, "alice"]
    hashes = [parameters.multimodal_hashes for parameters in double.LLM.last.requests if parameters]
    assert hashes[0] == hashes[3]
    assert all(hashes[first] != hashes[second] for first, second in ((0, 1), (0, 2), (1, 2)))


def test_a_version_that_knows_no_owners_shares_nothing(
    harness: StartHarness, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorrt_llm.LLM", double.UnsaltedLLM)
    prompt = make_prompt(checkpoint, seed=6, frames=0, greedy_tokens=8)
    assert harness().ask(prompt, greedy(8), cache_salt="alice").ids == list(prompt.greedy)
    assert not double.LLM.last.reuses_blocks


def test_blocks_are_reused_where_owners_are_known(harness: StartHarness) -> None:
    harness()
    assert double.LLM.last.reuses_blocks


def test_sampling_means_the_same_to_both_engines(harness: StartHarness, checkpoint: Path) -> None:
    prompt = make_prompt(checkpoint, seed=5, frames=4)
    sampling = SamplingParameters(
        max_tokens=24, temperature=1.3, top_p=0.9, top_k=40, min_p=0.01, seed=-7, repetition_penalty=1.1,
        presence_penalty=0.4, frequency_penalty=0.2, ignore_eos=True,
    )  # fmt: skip
    ids = harness().ask(prompt, sampling).ids
    assert ids == pytorch_ids(checkpoint, prompt, replace(sampling, seed=sampling.seed % 2**64 if sampling.seed else 0))
    assert ids != pytorch_ids(checkpoint, prompt, replace(sampling, seed=8))


def pytorch_ids(checkpoint: Path, prompt: Prompt, sampling: SamplingParameters) -> list[int]:
    running = Harness(make_settings(checkpoint))
    try:
        return running.ask(prompt, sampling).ids
    finally:
        running.engine.close()


@pytest.mark.parametrize(
    "wanted", [ResponseFormat("regex", "[0-9]{4}"), ResponseFormat("json_schema", '{"enum": [2011]}')]
)
def test_a_response_format_means_the_same_to_both_engines(
    harness: StartHarness, checkpoint: Path, wanted: ResponseFormat
) -> None:
    sampling = SamplingParameters(max_tokens=20, response_format=wanted)
    answer = harness().ask(make_prompt(checkpoint, seed=6, frames=0), sampling)
    text = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).decode(answer.ids)
    assert answer.finish_reason == "stop"
    assert re.fullmatch("[0-9]{4}" if wanted.kind == "regex" else "2011", text)


def test_a_grammar_that_does_not_compile_is_the_caller_s_mistake(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=6, frames=0)
    refused = running.ask(prompt, SamplingParameters(max_tokens=4, response_format=ResponseFormat("regex", "(")))
    assert refused.error.startswith("invalid_argument: sampling_parameters.response_format cannot be used: ")
    assert not running.ask(prompt, greedy(4)).error


@pytest.mark.parametrize("strip_stop", [False, True])
def test_a_stop_token_ends_the_answer(
    harness: StartHarness, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, strip_stop: bool
) -> None:
    monkeypatch.setattr(double.LLM, "strip_stop", strip_stop)
    prompt = make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    stop = prompt.greedy[6]
    place = prompt.greedy.index(stop)
    answer = harness().ask(prompt, greedy(24, stop_token_ids=(stop,)))
    assert answer.ids == list(prompt.greedy[: place + 1])
    assert answer.finish_reason == "stop"


def test_a_stop_token_counts_from_min_tokens_on(harness: StartHarness, checkpoint: Path) -> None:
    prompt = make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    sampling = greedy(24, stop_token_ids=(prompt.greedy[2],), min_tokens=8)
    assert harness().ask(prompt, sampling).ids == pytorch_ids(checkpoint, prompt, sampling)


def test_a_session_waits_until_there_is_room_for_its_whole_answer(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    long = 2048 - len(prompt.token_ids)
    for name in ("one", "two"):
        assert running.open(name, prompt, greedy(long)).admitted
    waiting = running.start("three", prompt, greedy(8))
    assert running.engine.state() == EngineState(CACHE_TOKENS // 16, 0, 0, 2, 1)
    last = running.start("four", prompt, greedy(8))
    assert not waiting.admitted
    assert (waiting.places, last.places) == ([1], [2])
    running.engine.cancel("one")
    assert waiting.admitted
    assert last.admitted or last.places == [2, 1]
    assert waiting.over.wait(60)
    assert waiting.ids == list(prompt.greedy[:8])


def test_cancelling_aborts_and_gives_the_blocks_back(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=10)
    full = running.engine.state()
    started = running.start("long", prompt, greedy(1500))
    wait_until(lambda: bool(started.ids))
    running.engine.cancel("long")
    assert running.engine.state() == full
    (result,) = double.LLM.last.results.values()
    assert result.aborted
    count = len(started.ids)
    assert running.ask(prompt, greedy(4)).finish_reason == "length"
    assert len(started.ids) == count, "nothing follows a cancellation"


def test_cancelling_before_the_prompt_is_whole_submits_nothing(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=10)
    first, *_ = prompt.pieces(4)
    running.open("early", prompt, greedy(4))
    running.engine.feed("early", first)
    running.engine.cancel("early")
    running.engine.feed("early", prompt.pieces(4)[1])
    running.ask(prompt, greedy(4))
    assert len(double.LLM.last.requests) == 1


def test_what_tensorrt_llm_refuses_ends_one_session(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    narrow = replace(prompt, rows=prompt.rows[:, :-1])
    answer = running.ask(narrow, greedy(4))
    assert answer.error.startswith("internal: TensorRT-LLM failed: RuntimeError: Expected multimodal embedding 0")
    assert running.ask(prompt, greedy(24)).ids == list(prompt.greedy)


def test_prompts_that_never_fit_are_refused_with_numbers(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=10)
    request = replace(prompt.request(greedy(4)), token_ids=np.resize(prompt.token_ids, 2048))
    with pytest.raises(RequestError, match=r"the prompt has 2048 tokens .* the context holds 2048 .* KV cache 4096"):
        running.engine.open("never", request)


def test_too_many_waiting_are_refused(harness: StartHarness, checkpoint: Path) -> None:
    running, prompt = harness(max_waiting=0), make_prompt(checkpoint, seed=5, frames=10)
    whole = greedy(2048 - len(prompt.token_ids))
    for name in ("one", "two"):
        running.open(name, prompt, whole)
    with pytest.raises(RequestError, match="resource_exhausted: 0 requests are waiting"):
        running.engine.open("three", prompt.request(whole))
    assert running.engine.state().waiting == 0
    for name in ("one", "two"):
        running.engine.cancel(name)


def test_who_fills_its_share_keeps_nobody_waiting(harness: StartHarness, checkpoint: Path) -> None:
    # Two of 64 places.
    running = harness(owner_share=0.04, max_waiting=4)
    prompt = make_prompt(checkpoint, seed=6, frames=0, words=1, greedy_tokens=8)
    mine = [running.open(f"mallory {n}", prompt, greedy(8), cache_salt="mallory") for n in range(4)]
    assert [answer.admitted for answer in mine] == [True, True, False, False]
    with pytest.raises(RequestError, match=r"resource_exhausted: 2 requests of this owner .*; retry in \d+ s$"):
        running.open("mallory 4", prompt, greedy(8), cache_salt="mallory")
    alice = running.start("alice", prompt, greedy(8), cache_salt="alice")
    assert alice.admitted
    assert alice.over.wait(60)
    assert alice.ids == list(prompt.greedy)
    assert running.open("everybody's", prompt, greedy(8)).admitted
    assert [answer.places for answer in mine] == [[], [], [1], [2]]
    for name in ("mallory 0", "mallory 2", "everybody's"):
        running.engine.cancel(name)
    assert mine[3].admitted
    running.engine.cancel("mallory 1")
    running.engine.cancel("mallory 3")
    running.wait_until_free()


def test_feeding_returns_while_another_prompt_is_handed_over(harness: StartHarness, checkpoint: Path) -> None:
    """One prompt at a time is on the GPU with all its rows; the others wait outside, and feeding never does."""
    running, prompt = harness(), make_prompt(checkpoint, seed=5, frames=10, greedy_tokens=24)
    most = 0
    original = double.LLM.generate_async

    def counted(llm: double.LLM, *arguments: object, **keywords: object) -> double.Result:
        nonlocal most
        unanswered = sum(not result._ids for result in llm.results.values())
        most = max(most, unanswered + 1)
        return original(llm, *arguments, **keywords)  # type: ignore[arg-type]

    double.LLM.generate_async = counted  # type: ignore[method-assign]
    try:
        answers = [running.start(str(number), prompt, greedy(24)) for number in range(4)]
        assert all(answer.prefilled == len(prompt.token_ids) for answer in answers)
        assert all(answer.over.wait(60) for answer in answers)
    finally:
        double.LLM.generate_async = original  # type: ignore[method-assign]
    assert most == 1
    assert all(answer.ids == list(prompt.greedy) for answer in answers)


def test_the_double_refuses_what_it_should(kind: str) -> None:
    tensor = torch.zeros(2, 3)
    handle = double.SharedTensorContainer.from_tensor(tensor).dump_to_dict()
    double.SharedTensorContainer.restore(handle)
    with pytest.raises(RuntimeError, match="a handle is read once"):
        double.SharedTensorContainer.restore(handle)
    handle = double.SharedTensorContainer.from_tensor(tensor).dump_to_dict()
    del tensor
    with pytest.raises(RuntimeError, match="was not kept alive"):
        double.SharedTensorContainer.restore(handle)
    with pytest.raises(ValueError, match="beyond the tensor's own"):
        double.SharedTensorContainer.from_tensor(torch.zeros(4, 3)[:2])
