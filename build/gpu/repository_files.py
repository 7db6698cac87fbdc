"""Writes the repository for a GPU: the assembled one, with stage 2 on TensorRT and stage 3 on the engine that fits."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from build.assemble.checkpoint_config import MERGED_PATCHES, PATCH_SIDE
from build.gpu.configurations import TENSORRT_PLAN_FILE
from build.gpu.llm_arguments import llm_arguments
from build.gpu.planner.planning import Fit

LLM_ARGUMENTS = Path("decoder", "1", "llm.json")
STAGE_1_CHECKPOINT = Path("video_preprocess", "1", "checkpoint")
DECODER_CHECKPOINT = Path("decoder", "1", "checkpoint")
TOKEN_PIXELS = PATCH_SIDE * PATCH_SIDE * MERGED_PATCHES


def write_repository(
    fit: Fit,
    configurations: Mapping[str, str],
    assembled: Path,
    tensorrt_plan: Path,
    checkpoint: Path,
    destination: Path,
) -> None:
    """Write `destination` anew from the `assembled` repository: files are hard links where that works.

    configurations: each model's config.pbtxt, by the model's name
    checkpoint: what stage 3 loads, quantised or not.
    """
    draft = destination.with_name(f".{destination.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    for stage in ("video_preprocess", "decoder", "qwen3_vl"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.safetensors.index.json")
        shutil.copytree(assembled / stage, draft / stage, ignore=ignored, copy_function=_link)
    # TensorRT-LLM reads a folder as the hub has it: tokenizer, processors and all.
    _replace_files(checkpoint, draft / DECODER_CHECKPOINT)
    if fit.profile.engine == "tensorrt_llm":
        mirror_tied_embeddings(draft / DECODER_CHECKPOINT / "config.json")
        _write(draft / LLM_ARGUMENTS, json.dumps(llm_arguments(fit), indent=2) + "\n")
    _link(tensorrt_plan, _made(draft / "vision_encoder" / "1") / TENSORRT_PLAN_FILE)
    for model, text in configurations.items():
        _write(draft / model / "config.pbtxt", text)
    bound_images(draft / STAGE_1_CHECKPOINT, fit.profile.max_frame_tokens)
    shutil.rmtree(destination, ignore_errors=True)
    draft.rename(destination)


def bound_images(folder: Path, max_tokens: int) -> None:
    """Let stage 1 resize pictures to what the TensorRT plan was built for: `max_tokens` visual tokens at most."""
    for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = folder / name
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            _bound_pixels(content if section is None else content.get(section, {}), max_tokens * TOKEN_PIXELS)
            _write(path, json.dumps(content, indent=2) + "\n")


def mirror_tied_embeddings(path: Path) -> None:
    """Write the top level's `tie_word_embeddings` into the text configuration too.

    transformers from 5.5 on has another default there, and TensorRT-LLM asks there: the logits would drift silently.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["text_config"]["tie_word_embeddings"] = config.get("tie_word_embeddings", False)
    _write(path, json.dumps(config, indent=2) + "\n")


def _bound_pixels(processor: dict[str, Any], max_pixels: int) -> None:
    size = processor.get("size", {})
    for holder, key in ((size, "longest_edge"), (size, "max_pixels"), (processor, "max_pixels")):
        if holder.get(key) is not None:
            holder[key] = min(holder[key], max_pixels)


def _replace_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.is_file() and file.suffix in (".json", ".jinja", ".txt", ".safetensors"):
            (target / file.name).unlink(missing_ok=True)
            _link(file.resolve(), target / file.name)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write(path: Path, text: str) -> None:
    # The file may be a link to the assembled repository's file, which must stay as it is.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
