"""The training's own model is Qwen3-VL: exported, transformers computes the same from it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from build.demo_checkpoint.export import export, load_exported
from build.demo_checkpoint.model import LanguageModel, VisionTower, patchify
from build.demo_checkpoint.training.batches import Batch, collate
from build.demo_checkpoint.training.prompts import write_example
from build.demo_checkpoint.training.schedule import model_shape
from build.demo_checkpoint.vocabulary import encode
from build.demo_checkpoint.world.questions import Line, Question, Track, Turn
from build.demo_checkpoint.world.world import Thing
from preprocess.media import subtitles
from preprocess.media.attachment import Attachment
from preprocess.plan.prompt import PromptMedium, PromptWriter
from preprocess.request.messages import Message, Text
from preprocess.settings import load_settings
from tests.support import reference

TIMESTAMPS = ("0.5", "2.5", "4.5")
CIRCLE, NUMBER = Thing("shape", "circle", "red"), Thing("number", "42")
QUESTIONS = (
    Question("when", "en", (Turn("When does the red circle appear?", "From 0.5 to 2.5 seconds."),)),
    Question("follow-up", "zh", (Turn("显示的单词是什么？", "单词 CAT。"), Turn("它在哪里？", "在左上。"))),
)


@pytest.fixture(scope="module")
def models() -> tuple[VisionTower, LanguageModel]:
    torch.manual_seed(0)
    tower, model = VisionTower(model_shape()), LanguageModel(model_shape())
    with torch.no_grad():
        # What the training starts at zero must count here, and bfloat16 must lose nothing.
        for name, parameter in (*tower.named_parameters(), *model.named_parameters()):
            if not parameter.any() and not name.startswith("pos_embed"):
                parameter.normal_(std=0.1)
            parameter.copy_(parameter.bfloat16())
    return tower.eval(), model.eval()


@pytest.fixture(scope="module")
def checkpoint(models: tuple[VisionTower, LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    export(folder, *models)
    return folder


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(6, 64, 96, 3), dtype=np.uint8)


def test_what_was_exported_is_read_again(checkpoint: Path, models: tuple[VisionTower, LanguageModel]) -> None:
    for part, read in zip(models, load_exported(checkpoint, model_shape()), strict=True):
        weights = read.state_dict()
        assert weights.keys() == part.state_dict().keys()
        for name, tensor in part.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0)


def prompt(checkpoint: Path, frames: np.ndarray, question: Question) -> reference.ReferencePrompt:
    video = reference.ReferenceVideo(frames, range(6), 1)
    first, *others = question.turns
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": first.question}]}]
    before = first
    for turn in others:
        messages += [{"role": "assistant", "content": before.answer}, {"role": "user", "content": turn.question}]
        before = turn
    return reference.process(checkpoint, messages, [video])


def batch() -> Batch:
    return collate([write_example(TIMESTAMPS, QUESTIONS)])


@pytest.mark.parametrize("owner", range(len(QUESTIONS)))
def test_prompts_are_the_reference_processors(checkpoint: Path, frames: np.ndarray, owner: int) -> None:
    expected = prompt(checkpoint, frames, QUESTIONS[owner])
    example = write_example(TIMESTAMPS, QUESTIONS)
    tokens = len(expected.token_ids)
    ids = np.concatenate([example.video.token_ids, example.questions[owner].token_ids])
    positions = np.concatenate([example.video.positions, example.questions[owner].positions], axis=1)
    assert ids[:tokens].tolist() == expected.token_ids.tolist()
    assert positions[:, :tokens].tolist() == expected.positions.tolist()


def test_lines_stand_where_stage_1_writes_them(checkpoint: Path) -> None:
    lines = (Line("0.5", CIRCLE, "zh"), Line("3.1", NUMBER, "en"), Line("9.9", CIRCLE, "en"))
    track = Track(TIMESTAMPS, ((),) * 3, (0, 0, 0), lines)
    example = write_example(TIMESTAMPS, QUESTIONS, track=track)
    said = tuple(subtitles.Line(float(line.time), float(line.time) + 1, line.text) for line in lines)
    medium = PromptMedium("video", 2, 3, tuple(map(float, TIMESTAMPS)), said)
    messages = [Message("user", (Attachment("video", "video", b""), Text(QUESTIONS[0].turns[0].question)))]
    expected = PromptWriter(checkpoint, load_settings(checkpoint).token_ids).write(messages, [medium])
    tokens = len(expected.token_ids)
    ids = np.concatenate([example.video.token_ids, example.questions[0].token_ids])
    positions = np.concatenate([example.video.positions, example.questions[0].positions], axis=1)
    assert ids[:tokens].tolist() == expected.token_ids.tolist()
    assert positions[:, :tokens].tolist() == expected.positions.tolist()


def test_packed_rows_are_the_references(
    checkpoint: Path, models: tuple[VisionTower, LanguageModel], frames: np.ndarray
) -> None:
    expected = reference.features(checkpoint, prompt(checkpoint, frames, QUESTIONS[0]))
    with torch.inference_mode():
        rows = models[0](patchify(torch.from_numpy(frames).view(3, 2, 64, 96, 3)))
    np.testing.assert_allclose(rows.flatten(0, 1).numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("owner", range(len(QUESTIONS)))
def test_logits_are_the_references(
    checkpoint: Path, models: tuple[VisionTower, LanguageModel], frames: np.ndarray, owner: int
) -> None:
    """Each question, though it shares its sequence with others, is answered as if it were asked alone."""
    asked = prompt(checkpoint, frames, QUESTIONS[owner])
    with torch.inference_mode():
        expected = reference.load_model(checkpoint)(**asked.inputs).logits[0, -1]
        rows = models[0](patchify(torch.from_numpy(frames).view(3, 2, 64, 96, 3)))
        b = batch()
        hidden = models[1](b.token_ids, b.positions, b.layout, b.visual, rows.flatten(0, 1)).hidden
        answers = (b.asked & (b.owners == owner)).nonzero()[:, 0]
        last_answer = encode(f"{QUESTIONS[owner].turns[-1].answer}<|im_end|>")
        logits = models[1].lm_head(hidden[answers[-len(last_answer)] - 1])
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-3)


def test_a_times_digits_are_found_in_fp32(models: tuple[VisionTower, LanguageModel]) -> None:
    """In bf16 they were those of other times, in a long video, and only in training."""
    b = batch()
    rows = torch.randn(len(b.visual), models[1].shape.hidden * 3, generator=torch.Generator().manual_seed(0))

    def first_attention() -> torch.Tensor:
        return models[1](b.token_ids, b.positions, b.layout, b.visual, rows).weights[0].video

    with torch.inference_mode():
        exact = first_attention()
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(first_attention(), exact, atol=1e-6, rtol=1e-5)
