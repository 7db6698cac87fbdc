"""Assemble a deployable model repository: the stages' code, a checkpoint's files, the exported vision tower, settings.

    python build/repository.py CHECKPOINT DESTINATION --set decoder.kv_cache_tokens=65536

CHECKPOINT is the folder of a dense Qwen3-VL checkpoint, or its name on the hub. Every file is replaced whole, and one that
is right already is left alone: an assembly that was interrupted is repaired by the next, and one without changes is quick.
"""

import argparse
import filecmp
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export_vision import export_vision
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

SOURCE = Path(__file__).resolve().parents[1] / "model_repository"
CHECKPOINT_FOLDER = Path("1", "checkpoint")
ONNX = CHECKPOINT_FOLDER / "vision.onnx"
SINGLE_WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"


class CheckpointError(ValueError):
    """The checkpoint is not there, not complete or not of a kind that is served; the message says which."""


class SettingsError(ValueError):
    """A setting names no parameter of the repository; the message lists those that exist."""


@dataclass(frozen=True)
class StageFiles:
    """What a stage reads from the checkpoint, beside weights."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


STAGE_FILES = {
    "video_preprocess": StageFiles(
        required=("config.json", "tokenizer.json", "tokenizer_config.json"),
        optional=(
            "chat_template.jinja",
            "chat_template.json",
            "preprocessor_config.json",
            "processor_config.json",
            "video_preprocessor_config.json",
        ),
    ),
    "decoder": StageFiles(
        required=("config.json", "tokenizer.json"), optional=("generation_config.json", "tokenizer_config.json")
    ),
}
WEIGHTS_STAGE, VISION_STAGE = "decoder", "vision_encoder"


def assemble(checkpoint: Path, destination: Path, settings: Mapping[str, str] | None = None) -> None:
    """Make `destination` a repository that serves the folder `checkpoint`, with `settings` in its configurations.

    `settings` maps `model.parameter`, as in `decoder.kv_cache_tokens`, to a value. Weights are hard links to the
    checkpoint's files where that works, else symbolic links, else copies. What an earlier assembly left in the models'
    folders and does not belong there any more is removed; other folders of `destination` are not touched.

    Raises CheckpointError, SettingsError, and ValueError for a vision tower that cannot be exported.
    """
    if destination.resolve() == SOURCE:
        raise ValueError(f"{destination} is the source of the stages' code; assemble into another folder")
    check_checkpoint(checkpoint)
    configurations = _configurations(settings or {})
    sources = {
        file.relative_to(SOURCE): file
        for model in configurations
        for file in (SOURCE / model).rglob("*")
        if file.is_file() and file.name != "config.pbtxt" and "__pycache__" not in file.parts
    }
    for stage, files in STAGE_FILES.items():
        for name in (*files.required, *files.optional):
            if (checkpoint / name).exists():
                sources[Path(stage) / CHECKPOINT_FOLDER / name] = checkpoint / name
    weights = {Path(WEIGHTS_STAGE) / CHECKPOINT_FOLDER / name: checkpoint / name for name in _weight_files(checkpoint)}

    _remove_stale(destination, configurations, {*sources, *weights})
    for path, source in sources.items():
        _place(source, destination / path)
    for path, source in weights.items():
        _place(source, destination / path, link=True)
    for model, configuration in configurations.items():
        _write(destination / model / "config.pbtxt", configuration)
    export_vision(checkpoint, destination / VISION_STAGE / ONNX)


def check_checkpoint(checkpoint: Path) -> None:
    """Raise CheckpointError unless the folder holds a complete dense Qwen3-VL checkpoint."""
    if not checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint} is not a folder; the folder of a Qwen3-VL checkpoint is accepted")
    required = {name for files in STAGE_FILES.values() for name in files.required}
    _require(checkpoint, *sorted(required))
    model_type = _read_json(checkpoint / "config.json").get("model_type")
    if model_type == "qwen3_vl_moe":
        raise CheckpointError(
            f"{checkpoint} is a mixture of experts (model_type qwen3_vl_moe), which is not served;"
            " the dense Qwen3-VL models (2B, 4B, 8B, 32B; model_type qwen3_vl) are accepted"
        )
    if model_type != "qwen3_vl":
        raise CheckpointError(f"{checkpoint}: config.json has model_type {model_type!r}; qwen3_vl is accepted")
    if not (checkpoint / "processor_config.json").exists():
        _require(checkpoint, "preprocessor_config.json", "video_preprocessor_config.json")
    templates = ("chat_template.jinja", "chat_template.json")
    in_tokenizer = "chat_template" in _read_json(checkpoint / "tokenizer_config.json")
    if not in_tokenizer and not any((checkpoint / name).exists() for name in templates):
        raise CheckpointError(f"{checkpoint} has no chat template; {' or '.join(templates)} is missing")
    _require(checkpoint, *_weight_files(checkpoint))


def find_checkpoint(name: str) -> Path:
    """The folder `name`, or the snapshot of the hub repository of that name, downloaded if need be."""
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(f"{name!r} is neither a folder nor a name on the hub like Qwen/Qwen3-VL-2B-Instruct")
    import huggingface_hub

    print(f"checkpoint: {name} is not a folder; looking it up on the hub", flush=True)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.safetensors"]))
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise CheckpointError(
            f"{name} is not a folder here and could not be downloaded from the hub; download it where there is a network"
            f" and give its folder. The hub's client said: {error}"
        ) from error


def _require(checkpoint: Path, *names: str) -> None:
    for name in names:
        if not (checkpoint / name).is_file():
            raise CheckpointError(f"{checkpoint}: {name} is missing")


def _weight_files(checkpoint: Path) -> list[str]:
    if (checkpoint / WEIGHTS_INDEX).exists():
        return [WEIGHTS_INDEX, *sorted(set(_read_json(checkpoint / WEIGHTS_INDEX)["weight_map"].values()))]
    return [SINGLE_WEIGHTS]


def _configurations(settings: Mapping[str, str]) -> dict[str, str]:
    """Each model's config.pbtxt, by the model's name, with the settings in it."""
    texts = {file.parent.name: file.read_text(encoding="utf-8") for file in sorted(SOURCE.glob("*/config.pbtxt"))}
    parsed = {model: text_format.Parse(text, model_config_pb2.ModelConfig()) for model, text in texts.items()}
    accepted = {f"{model}.{name}": (model, name) for model, config in parsed.items() for name in config.parameters}
    for setting, value in settings.items():
        if setting not in accepted:
            raise SettingsError(f"there is no parameter {setting!r}; accepted are {', '.join(sorted(accepted))}")
        model, name = accepted[setting]
        parsed[model].parameters[name].string_value = value
        texts[model] = text_format.MessageToString(parsed[model], as_utf8=True)
    return texts


def _remove_stale(destination: Path, models: Mapping[str, Any], wanted: set[Path]) -> None:
    kept = {*wanted, *(Path(model, "config.pbtxt") for model in models)}
    for model in models:
        for file in sorted((destination / model).rglob("*")):
            path = file.relative_to(destination)
            exported = path.is_relative_to(Path(VISION_STAGE, CHECKPOINT_FOLDER))
            if not file.is_dir() and path not in kept and not exported and "__pycache__" not in path.parts:
                file.unlink()


def _place(source: Path, target: Path, *, link: bool = False) -> None:
    source = source.resolve()
    if target.exists() and (target.samefile(source) if link else filecmp.cmp(source, target, shallow=False)):
        return
    if link and target.exists() and filecmp.cmp(source, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    draft.unlink(missing_ok=True)
    for make in (os.link, os.symlink, shutil.copy2) if link else (shutil.copy,):
        try:
            make(source, draft)
            break
        except OSError:
            if make is shutil.copy2 or make is shutil.copy:
                raise
    draft.replace(target)


def _write(target: Path, text: str) -> None:
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(target)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} has no '='; MODEL.PARAMETER=VALUE is accepted")
    return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description="Assemble a model repository that serves a Qwen3-VL checkpoint.")
    parser.add_argument("checkpoint", help="its folder, or a name on the hub like Qwen/Qwen3-VL-2B-Instruct")
    parser.add_argument("destination", type=Path, help="the repository's folder; made or brought up to date")
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="MODEL.PARAMETER=VALUE",
        type=_setting,
        action="append",
        default=[],
        help="replace a parameter of a model's config.pbtxt; may be given several times",
    )
    arguments = parser.parse_args()
    try:
        assemble(find_checkpoint(arguments.checkpoint), arguments.destination, dict(arguments.settings))
    except ValueError as error:
        sys.exit(f"{parser.prog}: {error}")
    print(f"repository: {arguments.destination} is ready", flush=True)


if __name__ == "__main__":
    main()
