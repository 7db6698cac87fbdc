"""Assemble a deployable model repository: the stages' code, a checkpoint's files, the exported vision tower, settings.

    python -m build.assemble.repository CHECKPOINT DESTINATION --set decoder.kv_cache_tokens=65536

CHECKPOINT is the folder of a dense Qwen3-VL checkpoint, or its name on the hub. Every file is replaced whole, and one
that is right already is left alone: an interrupted assembly is repaired by the next, and one without changes is quick.
"""

import argparse
import filecmp
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from build.assemble.checkpoint_config import PROCESSORS, weight_files
from build.assemble.export_vision import export_vision
from build.assemble.published_checkpoint import CHAT_TEMPLATES, check_checkpoint, find_checkpoint

SOURCE = Path(__file__).resolve().parents[2] / "model_repository"
CHECKPOINT_FOLDER = Path("1", "checkpoint")
ONNX = Path("vision_encoder") / CHECKPOINT_FOLDER / "vision.onnx"


# Parameters by the names that they had before, which are taken for one release more.
RENAMED = {
    "video_preprocess.memory_bytes": "video_preprocess.cache_bytes",
    "video_preprocess.memory_directory": "video_preprocess.cache_directory",
}


class SettingsError(ValueError):
    """A setting names no parameter of the repository; the message lists those that exist."""


# Each stage reads these from the checkpoint beside weights, as far as the checkpoint has them.
STAGE_FILES = {
    "video_preprocess": (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        *PROCESSORS,
        *CHAT_TEMPLATES,
    ),
    "decoder": ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
}


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
    texts = configurations(settings or {})
    sources = {
        file.relative_to(SOURCE): file
        for model in texts
        for file in (SOURCE / model).rglob("*")
        if file.suffix == ".py" or file.name == ".gitkeep"
    }
    sources |= {
        Path(stage) / CHECKPOINT_FOLDER / name: checkpoint / name
        for stage, names in STAGE_FILES.items()
        for name in names
        if (checkpoint / name).is_file()
    }
    weights = {Path("decoder") / CHECKPOINT_FOLDER / name: checkpoint / name for name in weight_files(checkpoint)}

    _remove_stale(destination, texts, {*sources, *weights})
    for path, source in sources.items():
        _place(destination / path, source.read_bytes())
    for path, source in weights.items():
        _link(destination / path, source.resolve())
    for model, text in texts.items():
        _place(destination / model / "config.pbtxt", text.encode())
    export_vision(checkpoint, destination / ONNX)


def configurations(settings: Mapping[str, str]) -> dict[str, str]:
    """Each model's config.pbtxt, by the model's name, with the settings in it. Raises SettingsError."""
    texts = {file.parent.name: file.read_text(encoding="utf-8") for file in sorted(SOURCE.glob("*/config.pbtxt"))}
    parsed = {model: text_format.Parse(text, model_config_pb2.ModelConfig()) for model, text in texts.items()}
    accepted = {f"{model}.{name}": (model, name) for model, config in parsed.items() for name in config.parameters}
    for setting, value in settings.items():
        if (renamed := RENAMED.get(setting)) in accepted:
            print(f"settings: {setting} is called {renamed} now", flush=True)
            setting = renamed
        if setting not in accepted:
            raise SettingsError(f"there is no parameter {setting!r}; accepted are {', '.join(sorted(accepted))}")
        model, name = accepted[setting]
        parsed[model].parameters[name].string_value = value
        texts[model] = text_format.MessageToString(parsed[model], as_utf8=True)
    return texts


def _remove_stale(destination: Path, models: Iterable[str], wanted: set[Path]) -> None:
    kept = {*wanted, *(Path(model, "config.pbtxt") for model in models)}
    for model in models:
        for file in sorted((destination / model).rglob("*")):
            path = file.relative_to(destination)
            exported = path.parent == ONNX.parent and path.name.startswith(ONNX.name)
            if not file.is_dir() and path not in kept and not exported and "__pycache__" not in path.parts:
                file.unlink()


def _place(target: Path, content: bytes) -> None:
    if target.is_file() and target.read_bytes() == content:
        return
    draft = _draft(target)
    draft.write_bytes(content)
    draft.replace(target)


def _link(target: Path, source: Path) -> None:
    """Weights are gigabytes: share them, or copy them where neither kind of link can be made."""
    if target.exists() and (target.samefile(source) or filecmp.cmp(target, source)):
        return
    draft = _draft(target)
    try:
        draft.hardlink_to(source)
    except OSError:
        try:
            draft.symlink_to(source)
        except OSError:
            shutil.copy2(source, draft)
    draft.replace(target)


def _draft(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    draft.unlink(missing_ok=True)
    return draft


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
