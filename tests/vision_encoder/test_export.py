"""What the export writes, and when it has nothing to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from build.assemble import export_vision
from build.assemble.checkpoint_factory import make_checkpoint
from build.assemble.vision_tower import VisionTower


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_unchanged_inputs_are_not_exported_again(small_tower: Any, tmp_path: Path) -> None:
    before = small_tower.onnx.stat()
    assert not export_vision.export_vision(small_tower.checkpoint, small_tower.onnx)
    assert small_tower.onnx.stat() == before

    # Only what the graph depends on counts: another tokenizer is no reason to export again, another pixel range is.
    checkpoint = Path(shutil.copytree(small_tower.checkpoint, tmp_path / "checkpoint"))
    (checkpoint / "merges.txt").unlink()
    assert not export_vision.export_vision(checkpoint, small_tower.onnx)
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        rewrite(checkpoint / name, image_mean=[0.4, 0.5, 0.6])
    output = tmp_path / "vision.onnx"
    for file in small_tower.onnx.parent.glob("vision.onnx*"):
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / "vision.onnx.data").touch()
    assert export_vision.export_vision(checkpoint, output)
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint", "vision.onnx", "vision.onnx.sha256"}


def test_other_weights_are_another_input(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_checkpoint(tmp_path / str(seed), seed=seed)
    first, second = (export_vision._fingerprint(tmp_path / str(seed)) for seed in (1, 2))
    assert first != second
    assert first == export_vision._fingerprint(tmp_path / "1")


def test_large_weights_go_into_a_file_of_their_own(
    small_tower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encoder.session import VisionEncoder

    monkeypatch.setattr(export_vision, "EXTERNAL_DATA_BYTES", 1000)
    output = tmp_path / "vision.onnx"
    export_vision.export_vision(small_tower.checkpoint, output)
    assert output.stat().st_size < (tmp_path / "vision.onnx.data").stat().st_size
    chunk = small_tower.chunk(1, 4, 4)
    whole, split = (VisionEncoder(path, threads=1).encode(chunk) for path in (small_tower.onnx, output))
    assert (whole == split).all()


def test_graph_has_free_frames_and_patches_and_the_wanted_opset(small_tower: Any) -> None:
    model = onnx.load(small_tower.onnx)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18
    dimensions = {
        node.name: [dim.dim_param or dim.dim_value for dim in node.type.tensor_type.shape.dim]
        for node in (*model.graph.input, *model.graph.output)
    }
    frames, patches, values = dimensions["patches"]
    assert isinstance(frames, str)
    assert isinstance(patches, str)
    assert values == 1536
    assert dimensions["rotary_cos"] == [patches, 12]
    assert dimensions["features"][0] == frames
    assert dimensions["features"][2] == 64 * 4


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("preprocessor_config.json", {"image_mean": [0.4, 0.4, 0.4]}, "images and videos are normalised differently"),
        ("config.json", {"vision_config": {"patch_size": 14}}, "vision_config.patch_size is 14; 16 is accepted"),
        ("config.json", {"vision_config": {"hidden_act": "silu"}}, "'silu'; accepted are gelu_pytorch_tanh, gelu"),
    ],
)
def test_towers_of_another_kind_are_refused(
    small_tower: Any, tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    checkpoint = Path(shutil.copytree(small_tower.checkpoint, tmp_path / "checkpoint"))
    original = json.loads((checkpoint / file).read_text())
    merged = {key: original[key] | value if isinstance(value, dict) else value for key, value in changes.items()}
    rewrite(checkpoint / file, **merged)
    with pytest.raises(ValueError, match=message):
        VisionTower.load(checkpoint)


def test_tensors_that_do_not_fit_the_configuration_are_named(small_tower: Any, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(small_tower.checkpoint, tmp_path / "checkpoint"))
    vision = json.loads((checkpoint / "config.json").read_text())["vision_config"] | {"depth": 5}
    rewrite(checkpoint / "config.json", vision_config=vision)
    with pytest.raises(ValueError, match=r"(?s)do not fit its config.json.*blocks\.4"):
        VisionTower.load(checkpoint)
