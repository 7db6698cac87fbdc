"""The random checkpoints load as published ones do, and decode to something that depends on what they are shown."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoProcessor, AutoTokenizer, Qwen3VLForConditionalGeneration

from build.assemble.checkpoint_factory import SHAPES, Shape, make_checkpoint
from tests.support import reference

PUBLISHED_FILES = {
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, seed=3)
    return folder


def user_turn(question: str, *media: dict[str, str]) -> dict[str, object]:
    return {"role": "user", "content": [*media, {"type": "text", "text": question}]}


@pytest.mark.parametrize("name", SHAPES)
def test_every_tensor_has_the_published_name_and_shape(name: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, seed=1, shape=SHAPES[name])
    model, info = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert model.dtype == getattr(torch, SHAPES[name].dtype)
    tied = model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert tied == SHAPES[name].tied
    assert {file.name for file in tmp_path.iterdir()} >= PUBLISHED_FILES


def test_same_seed_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "same", seed=3)
    make_checkpoint(tmp_path / "other", seed=4)
    for file in checkpoint.iterdir():
        assert (tmp_path / "same" / file.name).read_bytes() == file.read_bytes()
    weights = (checkpoint / "model.safetensors").read_bytes()
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights


def test_shards_hold_every_tensor_once(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, shape=Shape(shards=2))
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(weight_map.values()) == {f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2)}
    assert not (tmp_path / "model.safetensors").exists()


def test_tokenizer_is_qwens(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = "At 12.5 seconds she's there.\n\n  你好，世界 \N{GRINNING FACE} e\u0301"
    assert tokenizer.decode(tokenizer(text).input_ids) == text.replace("e\u0301", "\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert tokenizer.tokenize("1234") == list("1234")
    assert tokenizer.eos_token == "<|im_end|>"
    assert len(tokenizer("<|im_start|><|vision_start|><|video_pad|><think>").input_ids) == 4
    assert tokenizer.decode(tokenizer("a<|im_end|><think>").input_ids, skip_special_tokens=True) == "a<think>"


def test_tokenizer_json_and_transformers_agree(checkpoint: Path) -> None:
    text = "<|im_start|>user\nWhat's at 47.5 seconds?  一只小狗\r\n\tx=1;<|im_end|>\n"
    loaded = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert loaded.encode(text).ids == AutoTokenizer.from_pretrained(checkpoint)(text).input_ids


def test_chat_template_writes_turns_and_media(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    messages = [
        {"role": "system", "content": "Be brief."},
        user_turn("What is it?", {"type": "video"}, {"type": "image"}),
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        {"role": "user", "content": "Sure?"},
    ]
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>"
        "What is it?<|im_end|>\n"
        "<|im_start|>assistant\nA dog.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n"
    )
    assert processor.apply_chat_template(messages, tokenize=False) == expected
    prompted = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompted == expected + "<|im_start|>assistant\n"
    counted = processor.apply_chat_template(messages, tokenize=False, add_vision_id=True)
    assert "Video 1: <|vision_start|>" in counted
    assert "Picture 1: <|vision_start|>" in counted


@pytest.mark.parametrize("name", ["small", "untied"])
def test_greedy_answers_depend_on_picture_and_question_and_vary(name: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, seed=7, shape=SHAPES[name])
    pictures = [Image.new("RGB", (96, 64), color) for color in ("red", "blue", "white")]
    answers = []
    for picture in pictures:
        for question in ("What is in the picture?", "Count the people."):
            prompt = reference.process(tmp_path, [user_turn(question, {"type": "image"})], images=[picture])
            answers.append(reference.generate(tmp_path, prompt, 32))
    assert len({tuple(answer) for answer in answers}) == len(answers)
    assert all(len(set(answer)) >= 6 for answer in answers), answers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 4, "kv_heads": 3}, "multiple of kv_heads"),
        ({"vision_hidden": 40}, "multiple of 4"),
        ({"position_embeddings": 200}, "square"),
        ({"deepstack_levels": (0, 9)}, "below vision_depth"),
        ({"deepstack_levels": (2, 1)}, "rise"),
        ({"layers": 2}, "one per layer"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape(**changes)
