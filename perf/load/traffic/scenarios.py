"""The requests of perf_analyzer: to the ensemble, and to each stage between doubles of its neighbours (`stages/`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from build.serve.server.triton import ENSEMBLE
from perf.load.traffic.analyzer import Scenario, array, binary, strings
from perf.load.traffic.workload import QUESTIONS, greedy, video_files

STAGES = Path(__file__).parent / "stages"

DOUBLES = ("chunk_sink", "prompt_source", "video_preprocess_alone", "decoder_alone")


def ensemble(answer_tokens: int) -> Scenario:
    """Videos of every length in turn, each uploaded with its question, read to the end."""
    sampling = strings(json.dumps(greedy(answer_tokens)))
    data = [
        {"video": binary(path.read_bytes()), "text_input": strings(question), "sampling_parameters": sampling}
        for question in QUESTIONS
        for path in video_files()
    ]
    return Scenario("ensemble", ENSEMBLE, data)


def preprocess() -> Scenario:
    """Stage 1: the same videos, opened, planned, decoded and cut into patches."""
    data = [{"video": binary(path.read_bytes()), "text_input": strings(QUESTIONS[0])} for path in video_files()]
    return Scenario("video_preprocess", "video_preprocess_alone", data)


def encoder(position_embeddings: int, head_dim: int, *, frames: int = 4, patches: int = 192) -> Scenario:
    """Stage 2: a chunk of `frames` temporal patches of 256×192 pixels; its time does not depend on what they show."""
    rng = np.random.default_rng(0)
    angles = rng.random((patches, head_dim), dtype=np.float32)
    data = {
        "patches": array(rng.integers(0, 256, (frames, patches, 1536), dtype=np.uint8)),
        "position_indices": array(rng.integers(0, position_embeddings, (patches, 4), dtype=np.int32)),
        "position_weights": array(rng.random((patches, 4), dtype=np.float32)),
        "rotary_cos": array(np.cos(angles)),
        "rotary_sin": array(np.sin(angles)),
    }
    return Scenario("vision_encoder", "vision_encoder", [data], streaming=False)


def decoder(answer_tokens: int, prompt_tokens: int = 256) -> Scenario:
    """Stage 3: prompts of random tokens, which no prefix cache helps."""
    data = {
        "prompt_tokens": {"content": [prompt_tokens], "shape": [1]},
        "sampling_parameters": strings(json.dumps(greedy(answer_tokens))),
    }
    return Scenario("decoder", "decoder_alone", [data])


def add_doubles(repository: Path, credits_directory: Path) -> None:
    """Puts the stages' doubles beside the assembled models."""
    for model in DOUBLES:
        folder = repository / model
        shutil.copytree(STAGES / model, folder, ignore=shutil.ignore_patterns("__pycache__"))
        file = folder / "config.pbtxt"
        config = text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())
        if "credits_directory" in config.parameters:
            config.parameters["credits_directory"].string_value = str(credits_directory)
        file.write_text(text_format.MessageToString(config))
