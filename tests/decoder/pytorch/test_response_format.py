"""Answers of a wanted form, by the engine itself."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from engines.errors import RequestError
from engines.pytorch.grammar.constraint import constrain
from engines.pytorch.grammar.grammar import Grammar, GrammarError, load_tokens
from engines.response_format import MAX_CHARACTERS, ResponseFormat, parse_response_format
from engines.sampling_parameters import SamplingParameters, parse_sampling_parameters
from tests.support.harness import Answer, Harness, Prompt, greedy, make_prompt

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
        "seen": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["colour", "count", "seen"],
    "additionalProperties": False,
}
# In llguidance 1.9.1 this takes minutes to compile, whatever the limits.
ENDLESS = {"type": "integer", "multipleOf": 99_999_989}


def sampling(response_format: dict[str, Any], **changes: Any) -> SamplingParameters:
    return parse_sampling_parameters(
        json.dumps({"response_format": response_format, **changes}), SamplingParameters(max_tokens=200)
    )


def schema(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": of, "strict": True}}


def regex(of: str) -> dict[str, Any]:
    return {"type": "regex", "regex": of}


def start(started: Harness, session: str, prompt: Prompt, wanted: SamplingParameters) -> Answer:
    """Feeds the prompt when the session is admitted, as stage 1 does; one with a grammar is not at once."""
    answer = started.open(session, prompt, wanted)
    while not (answer.admitted or answer.over.wait(0.005)):
        pass
    for piece in prompt.pieces():
        started.engine.feed(session, piece)
    return answer


def ask(started: Harness, prompt: Prompt, wanted: SamplingParameters) -> Answer:
    answer = start(started, "asked", prompt, wanted)
    assert answer.over.wait(60), "the engine did not finish"
    return answer


@pytest.fixture(scope="module")
def prompt(checkpoint: Path) -> Prompt:
    return make_prompt(checkpoint, 2)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


def check_object(text: str) -> None:
    answer = json.loads(text)
    assert set(answer) == {"colour", "count", "seen"}
    assert answer["colour"] in ("red", "green", "blue")
    assert 0 <= answer["count"] <= 20
    assert 1 <= len(answer["seen"]) <= 3
    assert set(map(type, answer["seen"])) == {bool}


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_answers_keep_to_their_schema(
    harness: Callable[..., Harness], prompt: Prompt, tokenizer: Tokenizer, temperature: float
) -> None:
    started = harness()
    for seed in range(1 if temperature == 0 else 5):
        wanted = sampling(schema(SCHEMA), temperature=temperature, seed=seed, top_k=50, presence_penalty=1.5)
        answer = ask(started, prompt, wanted)
        assert answer.finish_reason == "stop"
        check_object(tokenizer.decode(answer.ids))


def test_any_object_and_expressions(harness: Callable[..., Harness], prompt: Prompt, tokenizer: Tokenizer) -> None:
    started = harness()
    answer = ask(started, prompt, sampling({"type": "json_object"}, temperature=1, seed=1, max_tokens=400))
    text = tokenizer.decode(answer.ids)
    assert text.startswith("{")
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    answer = ask(started, prompt, sampling(regex(r"[0-9]{2}:[0-5][0-9] (am|pm)")))
    assert answer.finish_reason == "stop"
    assert re.fullmatch(r"[0-9]{2}:[0-5][0-9] (am|pm)", tokenizer.decode(answer.ids))


def test_an_answer_that_is_cut_says_so(harness: Callable[..., Harness], prompt: Prompt) -> None:
    answer = ask(harness(), prompt, sampling(regex("[a-z]{300}"), max_tokens=5))
    assert (answer.finish_reason, len(answer.ids)) == ("length", 5)


@pytest.mark.parametrize("lag", [0, 1], ids=["each step waited for", "a step ahead"])
def test_with_and_without_a_grammar_go_side_by_side(
    harness: Callable[..., Harness], prompt: Prompt, tokenizer: Tokenizer, lag: int
) -> None:
    """A step ahead is how a GPU works: a grammar must not be asked before the last token is known."""
    started = harness()
    started.engine._lag = lag  # type: ignore[attr-defined]
    free = ask(started, prompt, greedy(40)).ids
    wanted = {f"grammar {seed}": sampling(schema(SCHEMA), temperature=1, seed=seed) for seed in range(4)}
    alone = {name: ask(started, prompt, one).ids for name, one in wanted.items()}
    answers = {}
    for name, one in wanted.items():
        answers[name] = start(started, name, prompt, one)
        answers[f"free {name}"] = start(started, f"free {name}", prompt, greedy(40))
    for name, answer in answers.items():
        assert answer.over.wait(60)
        assert answer.ids == (free if name.startswith("free") else alone[name])
        if not name.startswith("free"):
            check_object(tokenizer.decode(answer.ids))
    started.wait_until_free()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (regex("(a"), "unclosed group"),
        (regex("(?=a)b"), "look-ahead"),
        (schema({"type": "nonsense"}), "Invalid type: nonsense"),
        (schema({"$ref": "http://elsewhere/schema"}), "not present in a registry"),
        (schema(ENDLESS), "more than 1 seconds or 2 GiB to compile"),
    ],
    ids=["regex", "look-ahead", "type", "elsewhere", "endless"],
)
def test_what_cannot_be_compiled_is_refused_with_the_reason(
    harness: Callable[..., Harness], prompt: Prompt, wanted: dict[str, Any], message: str
) -> None:
    started = harness()
    answer = ask(started, prompt, sampling(wanted))
    assert answer.error.startswith("invalid_argument: sampling_parameters.response_format cannot be used: ")
    assert message in answer.error
    assert not answer.admitted
    started.wait_until_free()


def test_others_are_answered_while_a_grammar_is_compiled(harness: Callable[..., Harness], prompt: Prompt) -> None:
    started = harness()
    hostile = started.open("hostile", prompt, sampling(schema(ENDLESS)))
    cancelled = started.open("cancelled", prompt, sampling(regex("a+")))
    started.engine.cancel("cancelled")
    assert ask(started, prompt, greedy(10)).finish_reason == "length"
    assert not hostile.over.is_set(), "it is still being compiled"
    assert start(started, "behind", prompt, sampling(regex("abc"))).over.wait(30)
    assert hostile.error
    assert not cancelled.admitted
    started.wait_until_free()


def test_too_many_grammars_are_refused(harness: Callable[..., Harness], prompt: Prompt) -> None:
    started = harness(max_waiting=1)
    for name in ("first", "second"):
        started.open(name, prompt, sampling(schema(ENDLESS)))
    with pytest.raises(RequestError, match="resource_exhausted: 2 requests are waiting for their response_format"):
        started.open("third", prompt, sampling(schema(ENDLESS)))


def test_another_owners_grammar_waits_for_one_of_many(harness: Callable[..., Harness], prompt: Prompt) -> None:
    started = harness()
    hostile = [
        started.open(f"hostile {number}", prompt, sampling(schema(ENDLESS)), cache_salt="mallory")
        for number in range(4)
    ]
    honest = started.open("honest", prompt, sampling(regex("abc")), cache_salt="alice")
    while not honest.admitted:
        assert not all(answer.over.is_set() for answer in hostile[:2]), "the honest one waits for the second too"


def test_an_owner_may_have_half_of_the_grammars_that_wait(harness: Callable[..., Harness], prompt: Prompt) -> None:
    started = harness(max_waiting=2)
    for name in ("first", "second"):
        started.open(name, prompt, sampling(schema(ENDLESS)), cache_salt="mallory")
    with pytest.raises(RequestError, match="2 requests of this owner are waiting for their response_format"):
        started.open("third", prompt, sampling(schema(ENDLESS)), cache_salt="mallory")
    started.open("honest", prompt, sampling(schema(ENDLESS)), cache_salt="alice")


def test_grammars_without_an_owner_leave_half_to_others_once_there_are_some(
    harness: Callable[..., Harness], prompt: Prompt
) -> None:
    started = harness(max_waiting=4)
    started.open("honest", prompt, sampling(schema(ENDLESS)), cache_salt="alice")
    for name in ("first", "second", "third"):
        started.open(name, prompt, sampling(schema(ENDLESS)))
    with pytest.raises(RequestError, match="3 requests without a cache_salt are waiting for their response_format"):
        started.open("fourth", prompt, sampling(schema(ENDLESS)))


def test_a_grammar_that_becomes_too_complex_ends_its_own_answer_only(
    harness: Callable[..., Harness], prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = harness()
    failing = threading.Event()

    def check(self: Grammar) -> None:
        if failing.is_set():
            raise GrammarError("too many items")

    monkeypatch.setattr(Grammar, "check", check)
    other = start(started, "other", prompt, greedy(300))
    answer = start(started, "complex", prompt, sampling(regex("[a-z]+"), max_tokens=2000))
    failing.set()
    assert answer.over.wait(30)
    assert answer.error in (
        "invalid_argument: sampling_parameters.response_format cannot be followed: too many items",
        "invalid_argument: sampling_parameters.response_format cannot be used: too many items",
    )
    assert not other.error
    started.engine.cancel("other")


def test_masks_are_per_row(checkpoint: Path, tokenizer: Tokenizer) -> None:
    size, end = 768, tokenizer.token_to_id("<|im_end|>")
    tokens = load_tokens(checkpoint / "tokenizer.json", size, [end])
    digits, letter = (Grammar(tokens, ResponseFormat("regex", text)) for text in ("[0-9]", "ab?"))
    logits = torch.zeros(3, size)
    constrain(logits, [digits, None, letter])
    allowed = [{tokenizer.id_to_token(i) for i in row.isfinite().nonzero().flatten().tolist()} for row in logits]
    assert allowed[0] == set("0123456789")
    assert len(allowed[1]) > 500
    assert allowed[2] == {"a", "ab"}
    letter.advance(tokenizer.token_to_id("a"))
    after = torch.zeros(1, size)
    constrain(after, [letter])
    assert set(after[0].isfinite().nonzero().flatten().tolist()) == {tokenizer.token_to_id("b"), end}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("json", r'response_format is "json"; one of \{"type": "text"\}'),
        ({"type": "yaml"}, "one of .* is accepted"),
        ({"type": "json_object", "schema": {}}, "it has an unknown schema"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "one of .* is accepted"),
        ({"type": "json_schema", "json_schema": {"schema": {}, "shema": 1}}, "it has an unknown shema"),
        ({"type": "regex", "regex": 5}, "one of .* is accepted"),
        ({"type": "regex", "regex": "a" * (MAX_CHARACTERS + 1)}, "65537 characters; at most 65536 are accepted"),
    ],
)
def test_other_shapes_are_refused(value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        sampling(value)


def test_a_form_decides_itself_where_an_answer_ends() -> None:
    assert parse_response_format({"type": "text"}) is None
    for conflict in ({"min_tokens": 2}, {"ignore_eos": True}):
        with pytest.raises(RequestError, match="it decides itself where an answer ends, so 0 and false are accepted"):
            sampling({"type": "json_object"}, **conflict)
