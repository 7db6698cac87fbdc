import json
from math import prod
from pathlib import Path

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from build.gpu.planner.models import find_model, published_sizes, safetensors_shapes
from build.gpu.planner.weights import decoder_bytes, kv_bytes_per_token, vision_bytes
from tests.support import reference  # noqa: F401  lets transformers import beside a CPU build of PyTorch


@pytest.mark.parametrize("size", ["2B", "4B", "8B", "32B"])
def test_published_tensors_are_those_of_the_reference_model(size: str) -> None:
    entry = published_sizes()[size]
    config = Qwen3VLConfig(
        text_config={
            **entry["text"],
            "tie_word_embeddings": entry["tie_word_embeddings"],
            "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]},
        },
        vision_config={**entry["vision"], "out_hidden_size": entry["text"]["hidden_size"]},
        tie_word_embeddings=entry["tie_word_embeddings"],
    )
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    assert find_model(size).tensors == {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


@pytest.mark.parametrize(
    ("size", "kibibytes", "gibibytes"), [("2B", 112, 28), ("4B", 144, 36), ("8B", 144, 36), ("32B", 256, 64)]
)
def test_kv_cache_is_what_the_published_shapes_say(size: str, kibibytes: int, gibibytes: int) -> None:
    per_token = kv_bytes_per_token(find_model(size), "bf16")
    assert per_token == kibibytes * 1024
    assert per_token * 262_144 == gibibytes * 2**30
    assert kv_bytes_per_token(find_model(size), "fp8") * 2 == per_token
    # The PyTorch engine's 8 bits have a scale of 16 for every head's 128 values.
    assert kv_bytes_per_token(find_model(size), "int8") == per_token // 2 * (128 + 2) // 128


@pytest.mark.parametrize("shape", ["untied", "bfloat16"])
def test_a_checkpoint_s_own_files_are_counted_to_the_byte(shape: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, shape=SHAPES[shape])
    model = find_model(str(tmp_path))
    data = 0
    for path in tmp_path.glob("*.safetensors"):
        header = int.from_bytes(path.read_bytes()[:8], "little")
        data += path.stat().st_size - 8 - header
    precision = "bf16" if shape == "bfloat16" else "fp32"
    assert decoder_bytes(model, precision) + vision_bytes(model, precision) == data


def test_quantised_layers_are_counted_with_their_scales() -> None:
    model = find_model("4B")
    layers = [
        shape
        for name, shape in model.tensors.items()
        if name.startswith("model.language_model.layers.") and "_proj" in name
    ]
    assert len(layers) == 36 * 7
    values = sum(prod(shape) for shape in layers)
    saved = decoder_bytes(model, "bf16") - decoder_bytes(model, "fp8")
    assert saved == values - 8 * len(layers)
    scales = sum(outputs * inputs // 128 * 2 + inputs * 2 for outputs, inputs in layers)
    assert decoder_bytes(model, "bf16") - decoder_bytes(model, "int4_awq") == values * 3 // 2 - scales
    assert decoder_bytes(model, "bf16") - decoder_bytes(model, "int4") == values * 3 // 2 - values // 128 * 4


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'70B'.*2B \(Qwen/Qwen3-VL-2B-Instruct\)"):
        find_model("70B")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl_moe"}))
    with pytest.raises(ValueError, match="qwen3_vl_moe"):
        find_model(str(tmp_path))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        safetensors_shapes(tmp_path)
