"""Export the vision tower of a Qwen3-VL checkpoint to ONNX.

    python -m build.assemble.export_vision CHECKPOINT OUTPUT.onnx

Any frames and patches, uint8 pixels in, packed DeepStack rows out (`vision_tower.py`). Weights become float32. An
output that was made from the same tensors, configuration and exporter is left as it is.
"""

import argparse
import hashlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from build.assemble.checkpoint_config import MERGED_PATCHES, PATCH_VALUES, CheckpointConfig, VisionConfig
from build.assemble.vision_tower import VisionTower, read_pixel_statistics, read_vision_tensors

OPSET = 18
# A protobuf message cannot be larger than 2 GiB: weights go into a file of their own well before.
EXTERNAL_DATA_BYTES = 1 << 30
INPUTS = ("patches", "position_indices", "position_weights", "rotary_cos", "rotary_sin")


def export_vision(checkpoint: Path, output: Path) -> bool:
    """Write the tower of the folder `checkpoint` to `output`, large weights to `output`.data; False if nothing changed.

    ValueError if the checkpoint's tower is not of the published kind, or the exported graph computes something else.
    """
    stamp = output.with_name(f"{output.name}.sha256")
    print(f"vision tower: reading {checkpoint}", flush=True)
    fingerprint = _fingerprint(checkpoint)
    if output.exists() and stamp.exists() and stamp.read_text() == fingerprint:
        print(f"vision tower: {output} is up to date", flush=True)
        return False
    tower = VisionTower.load(checkpoint)
    parameters = sum(parameter.numel() for parameter in tower.parameters())
    print(f"vision tower: exporting {parameters / 1e6:.1f} M parameters", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    drafts = output.parent / f".{output.name}.drafts"
    shutil.rmtree(drafts, ignore_errors=True)
    drafts.mkdir()
    _export(tower, drafts / output.name, external_data=4 * parameters > EXTERNAL_DATA_BYTES)
    difference = _largest_difference(tower, drafts / output.name)
    # The stamp goes first and comes last: what an interruption leaves behind is made again.
    for outdated in (stamp, output.with_name(f"{output.name}.data")):
        outdated.unlink(missing_ok=True)
    for file in sorted(drafts.iterdir()):
        file.replace(output.parent / file.name)
    drafts.rmdir()
    stamp.write_text(fingerprint)
    print(f"vision tower: wrote {output}; ONNX Runtime and PyTorch differ by at most {difference:.0e}", flush=True)
    return True


def _fingerprint(checkpoint: Path) -> str:
    described = CheckpointConfig.read(checkpoint).vision, read_pixel_statistics(checkpoint)
    digest = hashlib.sha256(repr(described).encode())
    for source in (Path(__file__), Path(__file__).with_name("vision_tower.py")):
        digest.update(source.read_bytes())
    digest.update(torch.__version__.encode())
    for name, tensor in read_vision_tensors(checkpoint):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _example_inputs(config: VisionConfig, *, frames: int, patches: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(patches, config.head_dim, generator=generator)
    return (
        torch.randint(0, 256, (frames, patches, PATCH_VALUES), generator=generator, dtype=torch.uint8),
        torch.randint(0, config.position_embeddings, (patches, 4), generator=generator, dtype=torch.int32),
        torch.rand(patches, 4, generator=generator),
        angles.cos(),
        angles.sin(),
    )


def _export(tower: VisionTower, path: Path, *, external_data: bool) -> None:
    patches = MERGED_PATCHES * torch.export.Dim("quads", min=1)
    per_patch = {0: patches}
    with warnings.catch_warnings():
        # PyTorch's own deprecations, and that it names the output's patches by itself.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            tower,
            _example_inputs(tower.config, frames=2, patches=6 * MERGED_PATCHES),
            input_names=INPUTS,
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("frames", min=1), 1: patches}, *[per_patch] * 4),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "torch.onnx.export returns None only without dynamo"
    # Stage 2 checks indices against it: the graph's inputs do not tell it.
    program.model.metadata_props["position_embeddings"] = str(tower.config.position_embeddings)
    program.save(path, external_data=external_data)


@torch.inference_mode()
def _largest_difference(tower: VisionTower, path: Path) -> float:
    """Run the exported graph on shapes that it was not traced with, and compare; ValueError above rounding."""
    inputs = _example_inputs(tower.config, frames=1, patches=4 * MERGED_PATCHES)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (features,) = session.run(None, dict(zip(INPUTS, (tensor.numpy() for tensor in inputs), strict=True)))
    expected = tower(*inputs).numpy()
    difference = float(np.abs(features - expected).max())
    if not np.allclose(features, expected, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"the exported vision tower differs from the checkpoint's by {difference}; at most 1e-3 is accepted"
        )
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the vision tower of a Qwen3-VL checkpoint to ONNX.")
    parser.add_argument(
        "checkpoint", type=Path, help="a folder with config.json, processor configurations and safetensors"
    )
    parser.add_argument("output", type=Path, help="the file to write; large weights go to OUTPUT.data beside it")
    arguments = parser.parse_args()
    export_vision(arguments.checkpoint, arguments.output)


if __name__ == "__main__":
    main()
