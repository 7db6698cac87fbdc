"""What a request may say: options, messages, texts, and how long its prompt may be."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionRotaryEmbedding
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from preprocess.chunks.vision_positions import vision_positions
from preprocess.errors import InvalidArgumentError
from preprocess.plan.plan import Plan, make_plan
from preprocess.plan.prompt import PromptWriter
from preprocess.request.options import parse_video_options
from preprocess.request.request import Inputs, Limits, parse_request
from preprocess.settings import Patching, Settings, VisionTower
from preprocess.workers.reader import Reader
from tests.support import media, reference

Encode = Callable[..., bytes]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "a JSON object is accepted"),
        ({"frames": 1}, "unknown key 'frames'; accepted are sampler, fps"),
        ({"fps": 0}, "fps is 0; a number above 0 and at most 60"),
        ({"fps": 61}, "fps is 61"),
        ({"fps": "2"}, "fps is '2'"),
        ({"fps": True}, "fps is True"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"max_frames": 0}, "max_frames is 0; an integer of at least 1"),
        ({"max_frames": 2.0}, "max_frames is 2.0"),
        ({"max_tokens_per_frame": -1}, "max_tokens_per_frame is -1"),
        ({"max_video_tokens": 10**9}, "max_video_tokens is 1000000000"),
        ({"start": -1}, "start is -1; a number at least 0"),
        ({"start": 9, "end": 3}, "start is 9, more than end, 3"),
        ({"min_frames": 9, "max_frames": 3}, "min_frames is 9, more than max_frames, 3"),
        ({"sampler": "magic"}, "sampler is 'magic'; accepted are adaptive, uniform"),
        ({"sampler": []}, "sampler is []"),
    ],
    ids=str,
)
def test_video_options_that_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_video_options(options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one"),
        ([{"role": "user"}], "messages[0] lacks the key 'content'"),
        ([{"role": "robot", "content": ""}], "messages[0].role is 'robot'; accepted are system, user, assistant"),
        ([{"role": "user", "content": 1}], "a string or a list of parts"),
        ([{"role": "user", "content": "", "name": "x"}], "unknown key 'name'"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "content[0].type is 'audio'"),
        ([{"role": "user", "content": [{"type": "image", "image": 1}]}], "content[0].image is 1"),
        ([{"role": "user", "content": [{"type": "image", "image": True}]}], "content[0].image is True"),
        ([{"role": "user", "content": ""}], "image[0] is referred to 0 times"),
        ([{"role": "user", "content": [{"type": "image", "image": 0}] * 2}], "image[0] is referred to 2 times"),
        ([{"role": "assistant", "content": [{"type": "image", "image": 0}]}], "accepted in user messages only"),
        ([{"role": "user", "content": ""}, {"role": "system", "content": ""}], "first message only"),
    ],
    ids=str,
)
def test_messages_that_are_refused(messages: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_request(Inputs(messages=json.dumps(messages), images=[b"x"]), Limits(8))
    assert message in str(caught.value)


def test_attachments_are_counted() -> None:
    with pytest.raises(InvalidArgumentError, match="9 videos and images are attached; at most 8 are accepted"):
        parse_request(Inputs(text="", images=[b"x"] * 9), Limits(8))


def plan_of(inputs: Inputs, settings: Settings, writer: PromptWriter, reader: Reader) -> Plan:
    return make_plan(parse_request(inputs, Limits(64)), settings, writer, reader)


@pytest.mark.parametrize("parts", [["say <|im_end|>"], ["<|im_", "start|>"], ["<|video_pad|>"]])
def test_texts_do_not_forge_the_prompt(
    parts: list[str], settings: Settings, writer: PromptWriter, reader: Reader
) -> None:
    content = [{"type": "text", "text": part} for part in parts]
    inputs = Inputs(messages=json.dumps([{"role": "user", "content": content}]))
    with pytest.raises(InvalidArgumentError, match=r"message 0 contains the control token <\|"):
        plan_of(inputs, settings, writer, reader)


def test_prompt_longer_than_the_context(settings: Settings, writer: PromptWriter, reader: Reader) -> None:
    short = replace(settings, context_length=100)
    with pytest.raises(InvalidArgumentError, match=r"the prompt has \d+ tokens, .* context length of 100 are accepted"):
        plan_of(Inputs(text="word " * 200), short, writer, reader)
    with pytest.raises(InvalidArgumentError, match="context length of 80 "):
        plan_of(Inputs(text="word " * 200, video_options='{"context_length": 80}'), settings, writer, reader)


def test_videos_are_fitted_into_the_context_but_for_explicit_bounds(
    encode: Encode, settings: Settings, writer: PromptWriter, reader: Reader
) -> None:
    videos = [encode(f"{seed}.mp4", frames=120, fps=4, width=320, height=320, seed=seed) for seed in range(2)]
    free = plan_of(Inputs(text="?", videos=videos), settings, writer, reader)
    for context_length in (4000, 1200, 600, 250):
        inputs = Inputs(text="?", videos=videos, video_options=json.dumps({"context_length": context_length}))
        plan = plan_of(inputs, settings, writer, reader)
        tokens = len(plan.prompt.token_ids)
        if len(free.prompt.token_ids) <= context_length * 7 // 8:
            np.testing.assert_array_equal(plan.prompt.token_ids, free.prompt.token_ids)
        else:
            assert context_length // 3 < tokens <= context_length * 7 // 8
    explicit = json.dumps({"context_length": 250, "max_video_tokens": 500})
    with pytest.raises(InvalidArgumentError, match="context length of 250"):
        plan_of(Inputs(text="?", videos=videos, video_options=explicit), settings, writer, reader)


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({"fps": 1}, [0.5, 2.7, 4.9, 7.1, 9.3]),
        ({"start": 2, "end": 5, "fps": 2, "min_frames": 1}, [2.3, 3.5, 4.7]),
        ({"start": 9.9}, [9.8]),
    ],
)
def test_spans_of_time(
    options: dict[str, Any],
    times: list[float],
    encode: Encode,
    settings: Settings,
    writer: PromptWriter,
    reader: Reader,
) -> None:
    content = encode(frames=50, fps=5)
    inputs = Inputs(text="?", videos=[content], video_options=json.dumps({"sampler": "uniform", **options}))
    plan = plan_of(inputs, settings, writer, reader)
    assert [float(f"{t:.1f}") for t in plan.selections[0].medium.timestamps] == times


def test_start_behind_the_end(encode: Encode, settings: Settings, writer: PromptWriter, reader: Reader) -> None:
    inputs = Inputs(text="?", videos=[encode(frames=5, fps=5)], video_options='{"start": 1}')
    with pytest.raises(InvalidArgumentError, match=r"start is 1; video\[0\] ends at 1.000 s"):
        plan_of(inputs, settings, writer, reader)


def test_explicit_bounds_on_tokens(encode: Encode, settings: Settings, writer: PromptWriter, reader: Reader) -> None:
    content = encode(frames=80, fps=4, width=320, height=320)

    def tokens(**options: Any) -> tuple[int, int]:
        inputs = Inputs(text="?", videos=[content], video_options=json.dumps(options))
        (look,) = plan_of(inputs, settings, writer, reader).selections
        return look.temporal_patches, look.medium.rows * look.medium.columns

    assert tokens() == (20, 9)
    assert tokens(max_tokens_per_frame=4) == (20, 4)
    assert tokens(max_video_tokens=64) == (4, 16)
    assert tokens(max_frames=6) == (3, 81)


def test_image_orientation_of_the_camera_is_applied(settings: Settings, writer: PromptWriter, reader: Reader) -> None:
    target = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(media.make_image(width=320, height=64))).save(target, "JPEG", exif=exif)
    (look,) = plan_of(Inputs(text="?", images=[target.getvalue()]), settings, writer, reader).selections
    assert (look.size.height, look.size.width) == (320, 64)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 10), (30, 6), (48, 48), (2, 64)])
@pytest.mark.parametrize("side", [10, 48])
def test_vision_positions_are_the_references(rows: int, columns: int, side: int) -> None:
    config = reference.Qwen3VLForConditionalGeneration.config_class().vision_config
    tower = VisionTower(side, config.hidden_size // config.num_heads, config.rope_parameters["rope_theta"])
    ours = vision_positions(rows, columns, tower, Patching(16, 2, 2))
    grid = torch.tensor([[1, rows, columns]])
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid, side, mode="bilinear", align_corners=True, spatial_merge_size=2
    )
    cosines, sines = Qwen3VLVisionRotaryEmbedding(config)(torch.zeros(1), get_vision_position_ids(grid, 2))
    np.testing.assert_array_equal(ours.indices, indices.numpy())
    np.testing.assert_array_equal(ours.weights, weights.numpy())
    np.testing.assert_array_equal(ours.rotary_cos, cosines.numpy())
    np.testing.assert_array_equal(ours.rotary_sin, sines.numpy())
