"""What can be tested of the builders where neither TensorRT, ModelOpt nor a GPU is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from build.gpu.configurations import tensorrt_plan_bands
from build.gpu.planner.profiles import find_profile, profiles
from build.gpu.quantise import MODELOPT, check_quantised, quantise
from build.gpu.tensorrt_vision.builder import BuildError, _profile, require_tensorrt


class RecordingBuilder:
    """Stands for TensorRT's builder and for the profile that it creates."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def create_optimization_profile(self) -> "RecordingBuilder":
        return self

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes[name] = shapes


def test_profiles_name_every_input_of_the_graph_with_shapes_that_fit_it(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    declared = {node.name: node.shape for node in session.get_inputs()}
    head_dim = declared["rotary_cos"][-1]
    for band in tensorrt_plan_bands(find_profile("h100")):
        builder: Any = RecordingBuilder()
        shapes = _profile(builder, band, head_dim).shapes  # type: ignore[attr-defined]
        assert set(shapes) == set(declared)
        for name, (smallest, best, largest) in shapes.items():
            for low, middle, high in zip(smallest, best, largest, strict=True):
                assert low <= middle <= high
            for dimension, size in zip(declared[name], best, strict=True):
                assert isinstance(dimension, str) or dimension == size
        # All inputs of a chunk have the same number of patches.
        for place in range(3):
            patches = shapes["patches"][place][1]
            assert {shapes[name][place][0] for name in shapes if name != "patches"} == {patches}


def test_without_tensorrt_a_build_says_where_to_run() -> None:
    with pytest.raises(BuildError, match=r"tensorrt is not importable: build inside the builder image"):
        require_tensorrt()


def test_a_build_stops_where_it_needs_a_gpu_and_goes_on_from_there(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build.gpu",
        "--gpu",
        "rtx4090d",
        "--model",
        str(checkpoint),
        "--output",
        str(tmp_path),
    ]
    environment = {"PATH": "/usr/bin:/bin"}
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=False) for _ in range(2)
    )
    for result in (first, second):
        assert result.returncode == 2
        assert "error: the package tensorrt is not importable" in result.stderr
    assert "type the vision graph: up to date" not in first.stdout
    assert "type the vision graph: up to date" in second.stdout
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("weights", sorted({name for profile in profiles().values() for name in profile.weights}))
def test_every_precision_of_a_profile_is_stored_or_quantised(weights: str) -> None:
    assert weights in ("fp32", "bf16") or weights in MODELOPT


def write_quantised(folder: Path, **quantisation: str) -> None:
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": quantisation}))


def test_a_quantised_checkpoint_is_accepted_if_it_is_what_the_plan_says(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no hf_quant_config\.json"):
        check_quantised(tmp_path, "fp8", "fp8")
    write_quantised(tmp_path, quant_algo="FP8", kv_cache_quant_algo="FP8")
    check_quantised(tmp_path, "fp8", "fp8")
    with pytest.raises(BuildError, match="is quantised as FP8; the plan has int4_awq, which is W4A16_AWQ"):
        check_quantised(tmp_path, "int4_awq", "bf16")
    write_quantised(tmp_path, quant_algo="FP8", kv_cache_quant_algo="NVFP4")
    with pytest.raises(BuildError, match="KV cache in NVFP4; the plan has FP8"):
        check_quantised(tmp_path, "fp8", "fp8")


def test_without_modelopt_quantising_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"nvidia-modelopt is not importable.*--quantised FOLDER"):
        quantise(tmp_path, tmp_path / "quantised", "fp8")
