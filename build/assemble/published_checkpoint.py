"""A published Qwen3-VL checkpoint: found as a folder or on the hub, and checked before anything is built from it."""

import json
import re
from pathlib import Path
from typing import Any

import huggingface_hub

DOWNLOADED = ["*.json", "*.jinja", "*.safetensors"]
SINGLE_WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


class CheckpointError(ValueError):
    """The checkpoint is not there, not complete or not of a kind that is served; the message says which."""


def find_checkpoint(name: str) -> Path:
    """The folder `name`, or the snapshot of the hub repository of that name, downloaded if need be."""
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(f"{name!r} is neither a folder nor a name on the hub like Qwen/Qwen3-VL-2B-Instruct")
    print(f"checkpoint: {name} is not a folder; looking it up on the hub", flush=True)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=DOWNLOADED))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} is not a folder, and could not be downloaded from the hub; where there is no network, give the"
            f" folder of a checkpoint. The hub's client said: {error}"
        ) from error


def check_checkpoint(checkpoint: Path) -> None:
    """Raise CheckpointError unless the folder holds a complete dense Qwen3-VL checkpoint."""
    if not checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint} is not a folder; the folder of a Qwen3-VL checkpoint is accepted")
    _require(checkpoint, "config.json")
    model_type = _read_json(checkpoint / "config.json").get("model_type")
    if model_type == "qwen3_vl_moe":
        raise CheckpointError(
            f"{checkpoint} is a mixture of experts (model_type qwen3_vl_moe), which is not served;"
            " the dense Qwen3-VL models (2B, 4B, 8B, 32B; model_type qwen3_vl) are accepted"
        )
    if model_type != "qwen3_vl":
        raise CheckpointError(f"{checkpoint}: config.json has model_type {model_type!r}; qwen3_vl is accepted")
    _require(checkpoint, "tokenizer.json", "tokenizer_config.json")
    in_tokenizer = "chat_template" in _read_json(checkpoint / "tokenizer_config.json")
    if not in_tokenizer and not any((checkpoint / name).is_file() for name in CHAT_TEMPLATES):
        raise CheckpointError(f"{checkpoint} has no chat template: {' or '.join(CHAT_TEMPLATES)} is missing")
    if not (checkpoint / "processor_config.json").is_file():
        _require(checkpoint, *PROCESSORS)
    _require(checkpoint, *weight_files(checkpoint))


def weight_files(checkpoint: Path) -> list[str]:
    """The names of the safetensors files, and of their index if there is one."""
    if (checkpoint / WEIGHTS_INDEX).is_file():
        return [WEIGHTS_INDEX, *sorted(set(_read_json(checkpoint / WEIGHTS_INDEX)["weight_map"].values()))]
    return [SINGLE_WEIGHTS]


def _require(checkpoint: Path, *names: str) -> None:
    for name in names:
        if not (checkpoint / name).is_file():
            raise CheckpointError(f"{checkpoint}: {name} is missing")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
