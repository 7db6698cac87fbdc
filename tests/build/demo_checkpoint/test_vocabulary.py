"""Words are tokens, digits are tokens, and everything else survives as bytes."""

import pytest
from transformers import AutoTokenizer

from build.demo_checkpoint.export import export
from build.demo_checkpoint.model import LanguageModel, VisionTower
from build.demo_checkpoint.training.schedule import model_shape
from build.demo_checkpoint.vocabulary import build_tokenizer
from build.demo_checkpoint.world.wording import texts_to_cover


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def pieces(tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([token]) for token in tokenizer.encode(text).ids]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<12.5 seconds>", ["<", "1", "2", ".", "5", " seconds", ">"]),
        ("When does the red circle appear?", ["When", " does", " the", " red", " circle", " appear", "?"]),
        ("红色三角形什么时候出现？", ["红色", "三角形", "什么", "时候", "出现", "？"]),
        ("单词 CAT从", ["单词", " CAT", "从"]),
    ],
)
def test_words_and_digits_are_single_tokens(tokenizer, text: str, expected: list[str]) -> None:
    assert pieces(tokenizer, text) == expected


def test_no_word_of_the_world_is_spelled(tokenizer) -> None:
    spelled = {piece for text in texts_to_cover() for piece in pieces(tokenizer, text) if "\ufffd" in piece}
    assert spelled == set()


@pytest.mark.parametrize("text", ["Zebra, naïve 🦓\n\t¿qué?", "完全不同的文字。"])
def test_other_text_is_kept(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_transformers_cuts_alike(tokenizer, tmp_path) -> None:
    export(tmp_path, VisionTower(model_shape()), LanguageModel(model_shape()))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [
        "<12.5 seconds><|vision_start|><|video_pad|>",
        *texts_to_cover()[:60:3],
        "紫色方形和数字07。<|im_end|>\n",
    ]:
        assert loaded.encode(text) == tokenizer.encode(text).ids
