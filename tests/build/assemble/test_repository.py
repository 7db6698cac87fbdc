"""Assembling a repository: what it holds, its settings, what is refused, and what a second run repairs and leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from build.assemble import repository
from build.assemble.checkpoint_config import CheckpointError
from build.assemble.checkpoint_factory import Shape, make_checkpoint
from build.assemble.published_checkpoint import check_checkpoint, find_checkpoint

MODELS = {"qwen3_vl", "video_preprocess", "vision_encoder", "decoder"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, shape=Shape(shards=2))
    return folder


@pytest.fixture(scope="module", autouse=True)
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the stages' code, so that an edit during the tests is not taken for a change by an assembly."""
    copy = tmp_path_factory.mktemp("source") / "model_repository"
    shutil.copytree(repository.SOURCE, copy, ignore=shutil.ignore_patterns(".mypy_cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository, "SOURCE", copy)
        yield copy


@pytest.fixture(scope="module")
def assembled_once(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("repository")
    repository.assemble(checkpoint, destination)
    return destination


@pytest.fixture
def assembled(assembled_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(assembled_once, tmp_path / "repository", copy_function=os.link))


@pytest.fixture
def broken(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint for a test to break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "broken"))


def configuration(folder: Path, model: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse((folder / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_every_model_has_its_configuration_code_and_files(assembled: Path, checkpoint: Path) -> None:
    assert {folder.name for folder in assembled.iterdir()} == MODELS
    for model in MODELS:
        assert configuration(assembled, model) == configuration(repository.SOURCE, model)
        for source in (repository.SOURCE / model).rglob("*.py"):
            assert (assembled / source.relative_to(repository.SOURCE)).read_bytes() == source.read_bytes()
    assert (assembled / "qwen3_vl" / "1").is_dir()
    assert not list(assembled.rglob("__pycache__"))

    stages = {
        stage: {file.name for file in (assembled / stage / "1" / "checkpoint").iterdir()}
        for stage in MODELS - {"qwen3_vl"}
    }
    assert stages["video_preprocess"] == {
        "chat_template.json",
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
    }
    assert stages["vision_encoder"] == {"vision.onnx", "vision.onnx.sha256"}
    weights = {"model.safetensors.index.json", *(f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2))}
    described = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert stages["decoder"] == weights | described
    for name in weights:
        assert (assembled / "decoder/1/checkpoint" / name).samefile(checkpoint / name)


def test_settings_land_in_their_parameters_and_nowhere_else(assembled: Path, checkpoint: Path) -> None:
    media_root = '/videos/"mine"/é'
    repository.assemble(
        checkpoint, assembled, {"decoder.kv_cache_tokens": "65536", "video_preprocess.media_root": media_root}
    )
    expected = {model: configuration(repository.SOURCE, model) for model in MODELS}
    expected["decoder"].parameters["kv_cache_tokens"].string_value = "65536"
    expected["video_preprocess"].parameters["media_root"].string_value = media_root
    assert {model: configuration(assembled, model) for model in MODELS} == expected
    # Without settings the configurations are the source's again.
    repository.assemble(checkpoint, assembled)
    assert configuration(assembled, "decoder") == configuration(repository.SOURCE, "decoder")


@pytest.mark.parametrize(("old", "new"), repository.RENAMED.items())
def test_a_parameter_is_taken_by_its_old_name(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert repository.configurations({old: "12345"}) == repository.configurations({new: "12345"})
    assert capsys.readouterr().out == f"settings: {old} is called {new} now\n"


@pytest.mark.parametrize("setting", ["decoder.kv_tokens", "encoder.threads", "threads", "qwen3_vl.threads"])
def test_unknown_settings_are_refused_with_what_is_accepted(setting: str, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(repository.SettingsError, match=f"'{setting}'; accepted are .*vision_encoder.threads"):
        repository.assemble(checkpoint, tmp_path / "repository", {setting: "1"})
    assert not (tmp_path / "repository").exists()


def test_assembling_again_touches_nothing(assembled: Path, checkpoint: Path) -> None:
    before = files(assembled)
    repository.assemble(checkpoint, assembled)
    assert files(assembled) == before


def test_a_damaged_repository_is_repaired(assembled: Path, checkpoint: Path) -> None:
    other = assembled / "another_model" / "config.pbtxt"
    other.parent.mkdir()
    other.touch()
    before = files(assembled)
    (assembled / "decoder" / "1" / "model.py").unlink()
    for truncated in ("vision_encoder/1/model.py", "decoder/1/checkpoint/model-00001-of-00002.safetensors"):
        (assembled / truncated).unlink()
        (assembled / truncated).write_bytes(b"x")
    for stale in ("decoder/1/checkpoint/model.safetensors", "decoder/1/engines/gone.py", "decoder/.config.pbtxt.draft"):
        (assembled / stale).write_bytes(b"x")
    repository.assemble(checkpoint, assembled)
    assert files(assembled).keys() == before.keys()
    for path in ("decoder/1/model.py", "vision_encoder/1/model.py"):
        assert (assembled / path).read_bytes() == (repository.SOURCE / path).read_bytes()
    shard = "model-00001-of-00002.safetensors"
    assert (assembled / "decoder/1/checkpoint" / shard).samefile(checkpoint / shard)


def no_link(*arguments: object) -> None:
    raise OSError("Invalid cross-device link")


@pytest.mark.parametrize("refused", [{"link"}, {"link", "symlink"}])
def test_weights_are_linked_or_copied_as_the_file_system_allows(
    refused: set[str], assembled: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = assembled / "decoder/1/checkpoint/model-00001-of-00002.safetensors"
    weights.unlink()
    for call in refused:
        monkeypatch.setattr(os, call, no_link)
    repository.assemble(checkpoint, assembled)
    assert weights.is_symlink() == ("symlink" not in refused)
    assert weights.read_bytes() == (checkpoint / weights.name).read_bytes()
    before = weights.lstat()
    repository.assemble(checkpoint, assembled)
    assert weights.lstat().st_ino == before.st_ino


@pytest.mark.parametrize(
    "missing",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "model-00002-of-00002.safetensors",
    ],
)
def test_a_missing_file_is_named(missing: str, broken: Path) -> None:
    (broken / missing).unlink()
    with pytest.raises(CheckpointError, match=f"{re.escape(str(broken))}: {missing} is missing"):
        check_checkpoint(broken)


def change_config(folder: Path, name: str, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def test_a_checkpoint_without_weights_or_chat_template_is_refused(broken: Path) -> None:
    change_config(broken, "tokenizer_config.json", lambda content: content.pop("chat_template"))
    check_checkpoint(broken)
    (broken / "chat_template.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"no chat template: chat_template\.jinja or chat_template\.json is missing"
    ):
        check_checkpoint(broken)
    (broken / "chat_template.jinja").touch()
    (broken / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        check_checkpoint(broken)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("qwen3_vl_moe", r"mixture of experts \(model_type qwen3_vl_moe\), which is not served"),
        ("qwen2_5_vl", "model_type 'qwen2_5_vl'; qwen3_vl is accepted"),
    ],
)
def test_other_models_are_refused(model_type: str, message: str, broken: Path) -> None:
    change_config(broken, "config.json", lambda content: content.update(model_type=model_type))
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(broken)


def test_a_checkpoint_is_a_folder_or_a_name_on_the_hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(str(checkpoint)) == checkpoint
    with pytest.raises(CheckpointError, match="'/no/such/folder' is neither a folder nor a name on the hub"):
        find_checkpoint("/no/such/folder")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: f"/snapshots/{name}")
    assert find_checkpoint("Qwen/Qwen3-VL-2B-Instruct") == Path("/snapshots/Qwen/Qwen3-VL-2B-Instruct")

    def offline(name: str, **_: object) -> str:
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline mode is enabled")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"could not be downloaded.*offline mode is enabled"):
        find_checkpoint("Qwen/Qwen3-VL-2B-Instruct")


def test_the_source_is_no_destination(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="is the source of the stages' code"):
        repository.assemble(checkpoint, repository.SOURCE)


def test_the_command_line_says_what_is_wrong(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build.assemble.repository", checkpoint, tmp_path / "out"]
    command += ["--set", "decoder.nonsense=1"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("repository.py: there is no parameter 'decoder.nonsense'; accepted are ")
