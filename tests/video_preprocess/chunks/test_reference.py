"""Against transformers: token ids, positions and every byte of the patches, for whole requests."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from preprocess.chunks.chunks import data_chunks
from preprocess.plan.plan import Plan, make_plan
from preprocess.plan.prompt import PromptWriter
from preprocess.plan.selection import Selection
from preprocess.request.request import Inputs, Limits, parse_request
from preprocess.settings import Settings
from preprocess.workers.reader import Reader
from tests.support import media, reference

Encode = Callable[..., bytes]


def plan_of(inputs: Inputs, settings: Settings, writer: PromptWriter, reader: Reader) -> Plan:
    return make_plan(parse_request(inputs, Limits(64)), settings, writer, reader)


def independent_video(content: bytes, look: Selection) -> reference.ReferenceVideo:
    """The planned frames, found by decoding everything and counting, with the times that the timeline gives them."""
    assert look.video is not None
    assert look.indices is not None
    timeline = look.video.timeline
    with av.open(io.BytesIO(content), "r") as container:
        frames = [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in container.decode(video=0)]
    assert len(frames) == len(timeline)
    assert timeline.time_base.numerator == 1
    return reference.ReferenceVideo(
        np.stack([frames[index] for index in look.indices]),
        [int(tick - timeline.start_tick) for tick in timeline.ticks[look.indices]],
        timeline.time_base.denominator,
    )


def normalised(patches: np.ndarray) -> torch.Tensor:
    """The reference's rescaling and normalisation, which stage 2 does: uint8 to [-1, 1]."""
    return (torch.from_numpy(patches).float() - 127.5) / 127.5


def compare(
    checkpoint: Path,
    plan: Plan,
    settings: Settings,
    reader: Reader,
    messages: Sequence[dict[str, Any]],
    videos: Sequence[bytes],
    images: Sequence[bytes],
    chunk_tokens: int = 40,
) -> None:
    video_looks = [look for look in plan.selections if look.video is not None]
    truth = reference.process(
        checkpoint,
        messages,
        [independent_video(content, look) for content, look in zip(videos, video_looks, strict=True)],
        [Image.open(io.BytesIO(content)) for content in images],
    )
    chunks = list(data_chunks(plan, settings, reader, chunk_tokens, 0))
    token_ids = np.concatenate([chunk.token_ids for chunk in chunks])
    np.testing.assert_array_equal(token_ids, truth.token_ids)
    np.testing.assert_array_equal(np.concatenate([chunk.positions for chunk in chunks], axis=1), truth.positions)
    assert plan.prompt.next_position == truth.positions.max() + 1
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]

    expected = {"video": truth.inputs.get("pixel_values_videos"), "image": truth.inputs.get("pixel_values")}
    ours: dict[str, list[np.ndarray]] = {"video": [], "image": []}
    pads = {settings.token_ids.video_pad: "video", settings.token_ids.image_pad: "image"}
    for chunk in chunks:
        visual = chunk.token_ids[np.isin(chunk.token_ids, list(pads))]
        assert len(visual) * 4 == chunk.patches.shape[0] * (chunk.patches.shape[1] if len(visual) else 0)
        if len(visual):
            assert len(set(visual.tolist())) == 1
            assert len(visual) <= max(chunk_tokens, chunk.patches.shape[1] // 4)
            assert chunk.vision.indices.shape == (chunk.patches.shape[1], 4)
            ours[pads[int(visual[0])]].append(chunk.patches.reshape(-1, chunk.patches.shape[2]))
    for kind, patches in ours.items():
        if expected[kind] is None:
            assert not patches
        else:
            torch.testing.assert_close(normalised(np.concatenate(patches)), expected[kind], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"frames": 24, "width": 98, "height": 62}),
        ("odd.mp4", {"frames": 7, "fps": 3, "width": 200, "height": 100}),
        ("still.mp4", {"frames": 2, "fps": 1}),
        ("turned.mp4", {"rotation": 90, "frames": 30, "width": 160}),
        ("turned.mov", {"codec": "libx265", "rotation": 180}),
        ("turned.mkv", {"rotation": 270}),
        ("variable.mp4", {"variable": True, "frames": 30, "start_offset_seconds": 1.5, "audio": True}),
        ("variable.mkv", {"variable": True, "frames": 30, "start_offset_seconds": 0.75}),
        ("sound.webm", {"codec": "libvpx-vp9", "audio": True, "fps": 15}),
        ("av1.mp4", {"codec": "libsvtav1", "frames": 12, "fps": 6}),
        ("film.avi", {"codec": "mpeg4", "audio": True}),
        ("reordered.avi", {"codec": "libx264"}),
        ("live.webm", {"codec": "libvpx-vp9", "unknown_duration": True}),
        ("fragmented.mp4", {"unknown_duration": True, "frames": 31, "fps": 30}),
        ("tall.mp4", {"width": 16, "height": 480, "frames": 8, "fps": 4}),
        ("tiny.mp4", {"width": 16, "height": 16, "frames": 9, "fps": 4}),
        ("ntsc.mp4", {"fps": 29.97, "frames": 50}),
    ],
)
def test_videos_are_what_the_reference_makes_of_their_frames(
    name: str,
    options: dict[str, Any],
    encode: Encode,
    checkpoint: Path,
    settings: Settings,
    writer: PromptWriter,
    reader: Reader,
) -> None:
    content = encode(name, **options)
    plan = plan_of(Inputs(text="What happens, and when?", videos=[content]), settings, writer, reader)
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What happens, and when?"}]}]
    compare(checkpoint, plan, settings, reader, messages, [content], [])


@pytest.mark.parametrize(
    "options",
    [
        {"width": 96, "height": 64},
        {"width": 1, "height": 1},
        {"width": 700, "height": 33},
        {"width": 333, "height": 501, "format": "JPEG"},
        {"width": 120, "height": 90, "mode": "RGBA"},
        {"width": 120, "height": 90, "mode": "L"},
        {"width": 120, "height": 90, "mode": "P"},
    ],
)
def test_images_are_what_the_reference_makes_of_them(
    options: dict[str, Any], checkpoint: Path, settings: Settings, writer: PromptWriter, reader: Reader
) -> None:
    content = media.make_image(**options)
    plan = plan_of(Inputs(text="¿Qué hay?", images=[content]), settings, writer, reader)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "¿Qué hay?"}]}]
    compare(checkpoint, plan, settings, reader, messages, [], [content])


def test_several_media_in_several_turns(
    encode: Encode, checkpoint: Path, settings: Settings, writer: PromptWriter, reader: Reader
) -> None:
    videos = [encode("a.mp4", frames=20, fps=8), encode("b.mkv", frames=5, fps=2, width=64, height=128, seed=3)]
    images = [media.make_image(seed=1), media.make_image(width=300, height=40, seed=2)]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You look closely."},
        {
            "role": "user",
            "content": [
                {"type": "image", "image": 1},
                {"type": "text", "text": "Is this 12.5 seconds in "},
                {"type": "video", "video": 1},
                {"type": "video", "video": 0},
                {"type": "text", "text": "?"},
            ],
        },
        {"role": "assistant", "content": "No, 你好."},
        {"role": "user", "content": [{"type": "image", "image": 0}]},
    ]
    inputs = Inputs(messages=json.dumps(messages), videos=videos, images=images)
    plan = plan_of(inputs, settings, writer, reader)
    compare(checkpoint, plan, settings, reader, messages, [videos[1], videos[0]], [images[1], images[0]])


def test_text_alone(checkpoint: Path, settings: Settings, writer: PromptWriter, reader: Reader) -> None:
    plan = plan_of(Inputs(text="Hello  there\n"), settings, writer, reader)
    compare(checkpoint, plan, settings, reader, [{"role": "user", "content": "Hello  there\n"}], [], [])


def test_video_of_one_frame_is_that_frame_twice(
    encode: Encode, checkpoint: Path, settings: Settings, writer: PromptWriter, reader: Reader
) -> None:
    content = encode("one.mp4", frames=1)
    plan = plan_of(Inputs(text="", videos=[content]), settings, writer, reader)
    (chunk,) = data_chunks(plan, settings, reader, 1024, 0)
    assert plan.summary(settings)["media"][0]["timestamps"] == [0.0]
    halves = chunk.patches.reshape(-1, 3, 2, 256)
    np.testing.assert_array_equal(halves[:, :, 0], halves[:, :, 1])


@pytest.mark.parametrize("fps", [0.5, 1, 2, 3.3, 25, 60])
@pytest.mark.parametrize(("frames", "rate"), [(2, 1), (7, 3), (50, 29.97), (61, 24)])
def test_constant_rate_is_sampled_as_the_reference_samples_it(
    fps: float,
    frames: int,
    rate: float,
    encode: Encode,
    checkpoint: Path,
    settings: Settings,
    writer: PromptWriter,
    reader: Reader,
) -> None:
    content = encode("a.mp4", frames=frames, fps=rate)
    inputs = Inputs(text="", videos=[content], video_options=f'{{"fps": {fps}, "sampler": "uniform"}}')
    plan = plan_of(inputs, settings, writer, reader)
    processor = reference.load_processor(checkpoint).video_processor
    metadata = VideoMetadata(total_num_frames=frames, fps=float(Fraction(rate).limit_denominator(1000)))
    np.testing.assert_array_equal(plan.selections[0].indices, processor.sample_frames(metadata, fps=fps))
