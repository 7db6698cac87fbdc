"""Requests through the real stages 1 and 2 into both engines: the same tokens must come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from build.assemble.export_vision import export_vision
from encoder.chunk import Chunk as Pictures
from encoder.session import VisionEncoder
from engines.protocol import PromptPiece, Request
from preprocess.chunks.chunks import data_chunks
from preprocess.plan.digests import patch_digests
from preprocess.plan.plan import make_plan
from preprocess.plan.prompt import PromptWriter
from preprocess.request.request import Inputs, Limits, parse_request
from preprocess.settings import load_settings
from tests.support import media, readers
from tests.support.harness import Answer, Harness, greedy, make_settings

TOKENS = 24


@dataclass(frozen=True)
class Stages:
    """Stages 1 and 2 in this process."""

    checkpoint: Path
    encoder: VisionEncoder

    def pieces(self, inputs: Inputs) -> tuple[Request, list[PromptPiece]]:
        """What stage 3 is given for a request, in chunks of at most 8 visual tokens."""
        settings, reader = load_settings(self.checkpoint), readers.reader(None)
        request = parse_request(inputs, Limits(max_attachments=16))
        writer = PromptWriter(self.checkpoint, settings.token_ids)
        plan = make_plan(request, settings, writer, reader)
        pieces = [
            PromptPiece(chunk.begin, chunk.token_ids, chunk.positions, self._rows(chunk), chunk.last)
            for chunk in data_chunks(plan, settings, reader, 8, 0)
        ]
        prompt = plan.prompt
        digests = tuple(patch_digests(plan.selections, settings.patching, reader))
        return Request(prompt.token_ids, prompt.positions, digests, prompt.next_position, greedy(TOKENS)), pieces

    def _rows(self, chunk: Any) -> torch.Tensor:
        vision = chunk.vision
        features = self.encoder.encode(
            Pictures(chunk.patches, vision.indices, vision.weights, vision.rotary_cos, vision.rotary_sin)
        )
        return torch.from_numpy(features.reshape(-1, features.shape[-1]))


@pytest.fixture(scope="module")
def stages(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    onnx = tmp_path_factory.mktemp("vision") / "vision.onnx"
    export_vision(checkpoint, onnx)
    return Stages(checkpoint, VisionEncoder(onnx, threads=1))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("media")
    paths = [folder / "even.mp4", folder / "odd.mp4"]
    media.make_video(paths[0], width=96, height=64, frames=24, fps=6, seed=1)
    media.make_video(paths[1], width=64, height=128, frames=17, fps=5, seed=2)
    return [path.read_bytes() for path in paths]


def answer(harness: Any, request: Request, pieces: list[PromptPiece]) -> list[int]:
    heard = harness.answers["alone"] = Answer()
    harness.engine.open("alone", request)
    for piece in pieces:
        harness.engine.feed("alone", piece)
    assert heard.over.wait(60)
    assert not heard.error
    return heard.ids


@pytest.mark.parametrize("case", ["text", "video", "two videos", "image", "video and image"])
def test_both_engines_say_the_same(
    harness: Callable[..., Harness], stages: Stages, videos: list[bytes], case: str
) -> None:
    picture = media.make_image(width=96, height=96, seed=3)
    inputs = {
        "text": Inputs(text="Say it twice."),
        "video": Inputs(text="What happens?", videos=videos[:1]),
        "two videos": Inputs(text="Which is longer?", videos=videos),
        "image": Inputs(text="What is it?", images=[picture]),
        "video and image": Inputs(text="Is it in the video?", videos=videos[1:], images=[picture]),
    }[case]
    request, pieces = stages.pieces(inputs)
    assert (len(pieces) > 1) == ("video" in case)
    pytorch = Harness(make_settings(stages.checkpoint))
    try:
        expected = answer(pytorch, request, pieces)
    finally:
        pytorch.engine.close()
    assert len(expected) == TOKENS
    assert answer(harness(), request, pieces) == expected
