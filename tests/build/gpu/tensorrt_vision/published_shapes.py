"""Check the vision towers of the published sizes with random weights, without a GPU; not part of the tests.

    python -m tests.build.gpu.tensorrt_vision.published_shapes 2B 4B 8B

For each size: the exported graph and the typed ones pass ONNX's checker and shape inference, the float32 one equals
transformers' tower within 1e-4, the typed ones use only what TensorRT documents. Needs about 10 GB of memory and disk.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import tests.support.torchvision_operators  # noqa: F401  before transformers  # isort: skip
import torch
from safetensors.torch import save_file
from transformers import Qwen3VLVisionConfig, Qwen3VLVisionModel

from build.assemble.checkpoint_factory import make_checkpoint
from build.assemble.export_vision import INPUTS, export_vision
from build.gpu.planner.models import published_sizes
from build.gpu.tensorrt_vision.graph import write_typed_graph
from preprocess.chunks.vision_positions import vision_positions
from preprocess.settings import load_settings
from tests.build.gpu.tensorrt_vision.test_graph import CONSTANT_INPUTS, TENSORRT_OPERATORS, TENSORRT_TYPES

FRAMES, ROWS, COLUMNS = 2, 12, 16


def make_tower(folder: Path, size: str) -> Qwen3VLVisionModel:
    """transformers' tower of a published size, and a checkpoint folder that has its tensors."""
    entry = published_sizes()[size]
    # For its processor configurations and tokenizer.
    make_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {**entry["vision"], "out_hidden_size": entry["text"]["hidden_size"]}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    tower = Qwen3VLVisionModel(Qwen3VLVisionConfig(**config["vision_config"])).eval()
    save_file(
        {f"model.visual.{name}": tensor for name, tensor in tower.state_dict().items()}, folder / "model.safetensors"
    )
    return tower


def check_graph(path: Path) -> None:
    """The operators and types that TensorRT documents, as the tests check them on a small tower."""
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPERATORS
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        index = CONSTANT_INPUTS.get(node.op_type, len(node.input))
        assert constants.issuperset(node.input[index : index + 1]), node.name
    assert {tensor.data_type for tensor in model.graph.initializer} <= TENSORRT_TYPES


@torch.inference_mode()
def check(size: str, folder: Path) -> float:
    tower = make_tower(folder, size)
    settings = load_settings(folder)
    vision = vision_positions(ROWS, COLUMNS, settings.vision, settings.patching)
    patches = np.random.default_rng(0).integers(0, 256, (FRAMES, ROWS * COLUMNS, 1536), dtype=np.uint8)
    pixels = torch.from_numpy(patches).float().reshape(-1, 1536) / 127.5 - 1
    output = tower(pixels, grid_thw=torch.tensor([[FRAMES, ROWS, COLUMNS]]))
    expected = torch.cat([output.pooler_output, *output.deepstack_features], dim=-1).numpy()
    del tower, output
    export_vision(folder, folder / "vision.onnx")
    chunk = dict(
        zip(INPUTS, (patches, vision.indices, vision.weights, vision.rotary_cos, vision.rotary_sin), strict=True)
    )
    largest = 0.0
    for precision in ("served", "fp32", "bf16"):
        path = folder / ("vision.onnx" if precision == "served" else f"vision.{precision}.onnx")
        if precision != "served":
            write_typed_graph(folder / "vision.onnx", path, precision)
            check_graph(path)
        if precision != "bf16":
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            features = session.run(None, chunk)[0].reshape(expected.shape)
            largest = max(largest, float(np.abs(features - expected).max()))
            del session
    return largest


def main() -> int:
    failed = 0
    for size in sys.argv[1:] or ["2B", "4B", "8B"]:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            difference = check(size, Path(name))
        failed += difference > 1e-4
        print(
            f"{size}: largest difference {difference:.1e}, graphs documented, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
