import json
import subprocess
import sys
import types
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from build.gpu.manifest import Machine, ManifestError, check_manifest, this_machine, write_manifest
from build.gpu.planner.models import find_model
from build.gpu.planner.planning import Fit, find_fit
from build.gpu.planner.profiles import find_profile

HERE = Machine(gpu="NVIDIA GeForce RTX 4090 D", compute_capability="8.9", tensorrt="10.14.1.48")

OPTIONS = ("--cuda-memory-pool-byte-size=0:0",)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("vision_encoder/1/model.plan", "decoder/config.pbtxt", "decoder/1/checkpoint/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    fit = find_fit(find_profile("rtx4090d"), find_model("4B"))
    assert isinstance(fit, Fit)
    write_manifest(tmp_path, fit, Path("Qwen3-VL-4B-Instruct"), HERE, OPTIONS)
    return tmp_path


def test_a_repository_is_served_where_it_was_built(repository: Path) -> None:
    assert check_manifest(repository, HERE) == OPTIONS
    content = json.loads((repository / "manifest.json").read_text())
    assert (content["profile"], content["engine"]) == ("rtx4090d", "tensorrt_llm")
    assert content["versions"]["onnx"] == version("onnx")
    assert content["memory_bytes"]["KV cache"] == 9 * 2**30
    assert set(content["files"]) == {"vision_encoder/1/model.plan", "decoder/config.pbtxt"}


def test_a_plan_for_another_card_is_refused_by_name(repository: Path) -> None:
    other = replace(HERE, gpu="NVIDIA A10G", compute_capability="8.6")
    with pytest.raises(ManifestError, match=r"built on NVIDIA GeForce RTX 4090 D .*8\.9.* has NVIDIA A10G .*8\.6"):
        check_manifest(repository, other)
    with pytest.raises(ManifestError, match="this machine has no GPU"):
        check_manifest(repository, Machine("", "", ""))


def test_a_plan_of_another_version_is_refused_by_name(repository: Path) -> None:
    with pytest.raises(ManifestError, match=r"built with TensorRT 10\.14\.1\.48, and here is 11\.4\.0"):
        check_manifest(repository, replace(HERE, tensorrt="11.4.0"))


def test_the_version_is_that_of_triton_s_own_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the GPU image Python has the one that TensorRT-LLM depends on, and Triton another."""
    module = types.ModuleType("tensorrt")
    module.__version__ = "10.14.1.48"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.delenv("TRT_VERSION", raising=False)
    assert this_machine().tensorrt == "10.14.1.48"
    monkeypatch.setenv("TRT_VERSION", "11.1.0.106")
    assert this_machine().tensorrt == "11.1.0.106"


def test_changed_and_missing_files_are_refused_by_name(repository: Path) -> None:
    (repository / "decoder" / "config.pbtxt").write_text("changed")
    with pytest.raises(ManifestError, match=r"decoder/config\.pbtxt is not the file that was built"):
        check_manifest(repository, HERE)
    (repository / "decoder" / "config.pbtxt").unlink()
    with pytest.raises(ManifestError, match=r"decoder/config\.pbtxt is missing"):
        check_manifest(repository, HERE)
    (repository / "manifest.json").unlink()
    with pytest.raises(ManifestError, match="has no manifest"):
        check_manifest(repository, HERE)


def test_serving_refuses_what_was_not_built_before_it_starts_anything(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "build.serve", str(tmp_path)],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == f"error: {tmp_path} has no manifest.json: build it with `make repository`\n"


def test_what_is_assembled_only_is_refused_for_a_built_repository(repository: Path) -> None:
    command = [sys.executable, "-m", "build.serve", str(repository), "--set", "decoder.max_batch=8"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"{repository} is served as it was built: --model, --media-root and --set are for" in result.stderr


def test_serving_needs_none_of_what_building_does() -> None:
    """The GPU server's image has what its stages import."""
    code = "import build.serve.__main__, sys;"
    code += "print({'onnx', 'onnxruntime', 'torch', 'tritonclient'} & set(sys.modules))"
    environment = {"PATH": "/usr/bin:/bin"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
