"""Token ids to text, as they come."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from sessions.detokenizer import TextStream, Vocabulary

TEXT = "Das 视频 zeigt 一只猫 🐈‍⬛, dann 👩🏽‍🚀! END of it."


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer)


def pieces(stream: TextStream, ids: list[int]) -> list[str]:
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


def test_characters_of_several_tokens_come_whole(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    ids = tokenizer.encode(TEXT).ids
    assert len(ids) > len(TEXT), "the text should need several tokens a character"
    said = pieces(TextStream(vocabulary), ids)
    assert "".join(said) == TEXT
    assert not any("\ufffd" in piece for piece in said)


def test_an_unfinished_character_comes_at_the_end(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    ids = tokenizer.encode("猫").ids[:-1]
    assert ids
    assert pieces(TextStream(vocabulary), ids) == [""] * len(ids) + ["\ufffd"]


@given(st.data())
def test_any_tokens_give_what_the_tokenizer_decodes(checkpoint: Path, data: st.DataObject) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 5), max_size=40))
    skip = data.draw(st.booleans())
    stream = TextStream(Vocabulary(tokenizer), skip_special_tokens=skip)
    assert "".join(pieces(stream, ids)) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("stop", ["END", " END", "🐈", "猫 ", "👩🏽‍🚀!", "END of it."])
def test_a_stop_string_across_tokens_ends_the_text_before_it(
    tokenizer: Tokenizer, vocabulary: Vocabulary, stop: str
) -> None:
    stream = TextStream(vocabulary, ["never", stop])
    said = ""
    for token_id in tokenizer.encode(TEXT).ids:
        said += stream.push(token_id)
        assert TEXT[: TEXT.index(stop)].startswith(said), "a part of the stop string was said"
        if stream.stopped:
            break
    assert stream.stopped
    assert said == TEXT[: TEXT.index(stop)]
    assert stream.finish() == ""


def test_the_beginning_of_a_stop_string_is_held_back_and_said_when_it_does_not_come(
    tokenizer: Tokenizer, vocabulary: Vocabulary
) -> None:
    stream = TextStream(vocabulary, ["abcd"])
    assert [stream.push(tokenizer.token_to_id(c)) for c in "xababca"] == ["x", "", "", "ab", "", "", "abc"]
    assert stream.finish() == "a"
    assert not stream.stopped


def test_the_first_stop_string_counts_and_none_before_it_may_stop(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    stream = TextStream(vocabulary, ["c", "b"])
    assert stream.push(tokenizer.token_to_id("b"), may_stop=False) == "b"
    assert stream.push(tokenizer.token_to_id("a")) == "a"
    assert (stream.push(tokenizer.token_to_id("b")), stream.stopped) == ("", True)


def test_of_two_stop_strings_in_one_token_the_earlier_counts(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    words = (i for text, i in tokenizer.get_vocab().items() if text.isascii() and text.isalpha())
    token_id = min(i for i in words if len(set(tokenizer.decode([i]))) >= 3)
    text = tokenizer.decode([token_id])
    for stop in ([text[2], text[1]], [text[1], text[2]]):
        assert TextStream(vocabulary, stop).push(token_id) == text[0]


def test_a_tokenizer_without_bytes_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE())
    with pytest.raises(ValueError, match="'ByteLevel' is accepted"):
        Vocabulary(tokenizer)
    tokenizer.decoder = decoders.Metaspace()
    with pytest.raises(ValueError, match="decoder 'Metaspace'"):
        Vocabulary(tokenizer)
