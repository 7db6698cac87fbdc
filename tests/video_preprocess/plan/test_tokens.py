"""Long texts: their pieces have the tokens of the whole, and no more of them is tokenized than the context holds."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

from build.assemble.checkpoint_tokenizer import ADDED_TOKENS, untrained_tokenizer
from preprocess.errors import InvalidArgumentError, UnavailableError
from preprocess.plan.plan import make_plan
from preprocess.plan.prompt import PromptWriter
from preprocess.plan.tokens import PIECE_CHARACTERS, Tokens
from preprocess.request.request import Inputs, Limits, parse_request
from preprocess.settings import Settings
from preprocess.turns import Turns
from preprocess.workers.reader import Reader
from tests.support.readers import go_on

LONGEST_ADDED = max(map(len, ADDED_TOKENS))
FRAGMENTS = [
    *(" ", "  ", "\n", "\r\n", "\n\n", " \n ", "\t", "\u00a0", "\u2003", "\u3000", "\x1c", "\x85", "\u200b"),
    *(
        "a",
        "The",
        "isn't",
        "'ll",
        "'LL",
        "'",
        "'s",
        "x'",
        "1",
        "42",
        "½",
        "٣",
        "3.5",
        "!",
        "...",
        "=",
        "<",
        "!\n",
        "(a",
    ),
    *("你好", "。", "，", "カ\u3099", "か", "한국", "\u1112\u1161\u11ab", "\u1161", "é", "e\u0301", "\u0301", "\u0338"),
    *(
        "Ω\u2126",
        "\u212a",
        "\u037e",
        "ไทย",
        "हिन्दी",
        "\u09c7\u09be",
        "שלום",
        "عربي",
        "😀",
        "👩\u200d👧",
        "🇩🇪",
        "𝒳",
        "ſ",
    ),
    # Behind the end of a piece: what decides how a long run of blanks ends, and an accent that goes before other marks.
    *(" " * 30, "\n" + " " * 40 + "\n", "a" + "\u0345" * 30, "a" + "\u0345" * 30 + "\u0301"),
    *("<think>", "</think>", "<tool_call>", "<|im_end|>", "<|vision_start|>", "<|", "|>", "<thi", "nk>"),
]


@pytest.fixture(scope="module")
def encoder() -> Tokenizer:
    """Qwen's tokenizer with merges of the fragments: a text that is cut at another place has other ids."""
    tokenizer = untrained_tokenizer()
    chosen = random.Random(0)
    lines = ["".join(chosen.choices(FRAGMENTS, k=50)) for _ in range(1000)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_tokens(
        [AddedToken(name, special=special, normalized=False) for name, special in ADDED_TOKENS.items()]
    )
    return tokenizer


def pieces(encoder: Any, text: str, piece_characters: int) -> list[int] | None:
    """The ids of all pieces together; None for a text that is refused."""
    try:
        return [i for ids in Tokens(encoder, LONGEST_ADDED, piece_characters).pieces(text) for i in ids]
    except InvalidArgumentError:
        return None


@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), min_size=10, max_size=200),
    piece_characters=st.integers(24, 80),
)
def test_pieces_have_the_tokens_of_the_whole(encoder: Any, fragments: list[str], piece_characters: int) -> None:
    text = "".join(fragments)
    ids = pieces(encoder, text, piece_characters)
    assert ids is None or ids == encoder.encode(text).ids


@pytest.mark.parametrize("seed", range(6))
def test_long_mixed_texts_are_accepted_with_the_tokens_of_the_whole(encoder: Any, seed: int) -> None:
    text = "".join(random.Random(seed).choices(FRAGMENTS, k=6000))
    assert pieces(encoder, text, 100 + 211 * seed) == encoder.encode(text).ids


@pytest.mark.parametrize(
    "text", ["word " * 40_000, "你好，世界。" * 20_000, "12" * 60_000, "a line\n" * 20_000, "<think>" * 20_000]
)
def test_ordinary_long_texts_are_cut(encoder: Any, text: str) -> None:
    found = list(Tokens(encoder, LONGEST_ADDED).pieces(text))
    assert [i for ids in found for i in ids] == encoder.encode(text).ids
    assert len(found) > len(text) // PIECE_CHARACTERS


@pytest.mark.parametrize("character", ["a", " ", "!", "字", "\n", "\u0301", "😀"])
def test_an_endless_word_is_refused(encoder: Any, character: str) -> None:
    assert pieces(encoder, "What? " + 390 * character + " Is it?", 100) is not None
    with pytest.raises(
        InvalidArgumentError,
        match=r"a text has 400 characters without a break between words, from character .* fewer are accepted",
    ):
        list(Tokens(encoder, LONGEST_ADDED, 100).pieces("What? " + 500 * character))


def refusal(text: str, settings: Settings, writer: PromptWriter, reader: Reader) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        make_plan(parse_request(Inputs(text=text, videos=[b"no video"]), Limits(1)), settings, writer, reader)
    return str(caught.value)


def test_no_more_of_a_text_is_tokenized_than_the_context_holds(
    settings: Settings, writer: PromptWriter, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a video opened for a text that is refused."""
    tokenized: list[int] = []
    encode = Tokens.pieces

    def count(tokens: Tokens, text: str) -> Any:
        for ids in encode(tokens, text):
            tokenized.append(len(ids))
            yield ids

    monkeypatch.setattr(Tokens, "pieces", count)
    short = replace(settings, context_length=20_000)
    assert refusal("x " * 1_000_000, short, writer, reader) == (
        "invalid_argument: the prompt has more than 20000 tokens, of text alone;"
        " fewer than the context length of 20000 are accepted"
    )
    assert 20_000 < sum(tokenized) <= 20_000 + PIECE_CHARACTERS


def test_a_long_text_ends_with_its_session(settings: Settings, writer: PromptWriter, reader: Reader) -> None:
    def interrupt() -> None:
        raise UnavailableError("the session is over")

    messages = parse_request(Inputs(text="x " * PIECE_CHARACTERS), Limits(1)).messages
    with pytest.raises(UnavailableError):
        writer.check_length(messages, settings.context_length, "mine", interrupt)
    writer.check_length(messages, settings.context_length, "mine", go_on)


def test_an_owner_has_one_turn_at_a_time() -> None:
    turns, second = Turns(), threading.Event()

    def take() -> None:
        with turns.of("mine", go_on):
            second.set()

    waiting = threading.Thread(target=take)
    with turns.of("mine", go_on):
        with turns.of("another", go_on):
            waiting.start()
        assert not second.wait(0.2)
    waiting.join()
    assert second.is_set()


def test_waiting_for_a_turn_ends_with_what_interrupts_it() -> None:
    turns = Turns()

    def interrupt() -> None:
        raise UnavailableError("the session is over")

    with turns.of("mine", go_on), pytest.raises(UnavailableError), turns.of("mine", interrupt):
        raise AssertionError
    with turns.of("mine", go_on):
        pass
