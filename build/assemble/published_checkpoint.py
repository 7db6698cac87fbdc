"""A published Qwen3-VL checkpoint: found as a folder or on the hub, and checked before anything is built from it."""

import re
from pathlib import Path

import huggingface_hub

from build.assemble.checkpoint_config import (
    PROCESSORS,
    CheckpointConfig,
    CheckpointError,
    read_json,
    require,
    weight_files,
)

DOWNLOADED = ["*.json", "*.jinja", "*.safetensors"]
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")


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
    CheckpointConfig.read(checkpoint)
    require(checkpoint, "tokenizer.json", "tokenizer_config.json")
    in_tokenizer = "chat_template" in read_json(checkpoint / "tokenizer_config.json")
    if not in_tokenizer and not any((checkpoint / name).is_file() for name in CHAT_TEMPLATES):
        raise CheckpointError(f"{checkpoint} has no chat template: {' or '.join(CHAT_TEMPLATES)} is missing")
    if not (checkpoint / "processor_config.json").is_file():
        require(checkpoint, *PROCESSORS)
    require(checkpoint, *weight_files(checkpoint))
