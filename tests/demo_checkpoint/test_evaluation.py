"""What the evaluation takes for the sampler's view of a video is what the served sampler sees."""

from pathlib import Path

import pytest
import torch
from demo_checkpoint.evaluation import load_checkpoint, make_case, sampled_frames
from demo_checkpoint.export import export, published_weights
from demo_checkpoint.model import LanguageModel, VisionTower
from demo_checkpoint.training import model_shape
from preprocess.look import look_at_video, open_video
from preprocess.media import Library
from preprocess.messages import Attachment
from preprocess.options import VideoOptions
from preprocess.settings import load_settings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    export(folder, VisionTower(model_shape()), LanguageModel(model_shape()))
    return folder


@pytest.mark.parametrize(("seed", "seconds"), [(0, 4), (1, 7), (2, 12), (3, 96)])
def test_frames_timestamps_and_size_are_the_served_ones(checkpoint: Path, seed: int, seconds: int) -> None:
    case = make_case(seed, seconds=seconds)
    video = open_video(Attachment("video", "video 0", case.file), Library(None, 1 << 20), lambda: None)
    look = look_at_video(video, VideoOptions(sampler="uniform"), load_settings(checkpoint))
    assert look.indices.tolist() == sampled_frames(case.script).flatten().tolist()
    assert tuple(f"{seconds:.1f}" for seconds in look.medium.timestamps) == case.track.timestamps
    assert (look.size.height, look.size.width) == (64, 96)


def test_a_checkpoint_is_loaded_as_it_was_exported(checkpoint: Path) -> None:
    first = published_weights(*load_checkpoint(checkpoint))
    torch.manual_seed(0)
    second = published_weights(VisionTower(model_shape()), LanguageModel(model_shape()))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
