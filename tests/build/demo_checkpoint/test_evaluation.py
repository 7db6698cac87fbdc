"""The evaluation's videos and changed checkpoints are what they are said to be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from build.demo_checkpoint.evaluation import (
    changed_checkpoint,
    in_reverse,
    make_case,
    rows_and_columns_swapped,
    starting_later,
    without_deepstack,
)
from build.demo_checkpoint.export import export, published_weights
from build.demo_checkpoint.model import LanguageModel, VisionTower
from build.demo_checkpoint.training.schedule import model_shape
from build.demo_checkpoint.training.served import look_at
from build.demo_checkpoint.world.video import decode
from preprocess.media.subtitles import read_subtitles


def test_a_case_asks_each_kind_once_in_each_language() -> None:
    case = make_case(3, seconds=12, languages=("en", "zh"))
    kinds = [(question.kind, question.language) for question in case.questions]
    assert len(kinds) == len(set(kinds))
    assert {("when", "en"), ("when", "zh"), ("what at", "en"), ("summary", "zh")} <= set(kinds)


def test_a_video_that_starts_later_is_seen_later() -> None:
    case = make_case(3, seconds=12, kinds=("when",), languages=("en",))
    later = starting_later(case, 10.0)
    seen = look_at(later.file)
    assert seen.timestamps == later.track.timestamps
    assert seen.frames.tolist() == look_at(case.file).frames.tolist()
    assert later.track.timestamps != case.track.timestamps
    (question,) = later.questions
    assert all(time in later.track.timestamps for time in question.turns[0].answer.rstrip(".").split()[1:4:2])


def test_lines_are_subtitles_of_the_video() -> None:
    case = make_case(3, seconds=12, kinds=("said at", "said when"), languages=("en",), spoken=True)
    assert case.subtitles
    read = read_subtitles(case.subtitles, "lines.vtt")
    assert [(f"{line.start:.1f}", line.text) for line in read] == [(line.time, line.text) for line in case.track.lines]
    assert {question.kind for question in case.questions} == {"said at", "said when"}


def test_reversed_frames_are_the_same_from_the_end() -> None:
    case = make_case(0, seconds=4, languages=("en",))
    difference = decode(in_reverse(case).file)[::-1].astype(int) - decode(case.file)
    assert np.abs(difference).mean() < 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    export(folder, VisionTower(model_shape()), LanguageModel(model_shape()))
    return folder


def test_only_what_is_taken_away_changes(checkpoint: Path, tmp_path: Path) -> None:
    changed_checkpoint(checkpoint, tmp_path / "changed", without_deepstack)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "changed"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("deepstack_merger_list" in name and not after[name].any() for name in changed)


def test_swapping_rows_and_columns_twice_changes_nothing() -> None:
    weights = published_weights(VisionTower(model_shape()), LanguageModel(model_shape()))
    once = rows_and_columns_swapped(weights)
    twice = rows_and_columns_swapped(once)
    assert any(not torch.equal(weights[name], once[name]) for name in weights)
    assert all(torch.equal(weights[name], twice[name]) for name in weights)
