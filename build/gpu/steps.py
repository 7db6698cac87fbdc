"""Steps of a build: each says what it would do, is skipped when its inputs are what they were, and leaves a stamp."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """One piece of a build."""

    name: str
    what: Sequence[str]
    """Lines that tell people what is done."""
    inputs: dict[str, Any]
    """Everything that the outputs depend on; files count by content (small) or by size and time (weights)."""
    outputs: Sequence[Path]
    """The files that there are afterwards; a step without any runs every time."""
    run: Callable[[], None]


def run_steps(steps: Sequence[Step], stamps: Path, report: Callable[[str], None], *, dry_run: bool) -> None:
    """Run what is not up to date, in order; an interrupted build goes on at the step that it was in."""
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.name}"
        stamp = stamps / f"{step.name.replace(' ', '-')}.json"
        if not dry_run and _is_up_to_date(step, stamp):
            report(f"{head}: up to date")
            continue
        report(head)
        for line in step.what:
            report(f"    {line}")
        if not dry_run:
            stamp.unlink(missing_ok=True)
            step.run()
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(_fingerprint(step))


def _is_up_to_date(step: Step, stamp: Path) -> bool:
    made = bool(step.outputs) and all(output.exists() for output in step.outputs)
    return made and stamp.exists() and stamp.read_text() == _fingerprint(step)


def _fingerprint(step: Step) -> str:
    return json.dumps(step.inputs, sort_keys=True, default=_describe, indent=1)


def _describe(value: Any) -> str:
    """Describes an input that is a file or a folder, for a fingerprint."""
    if not isinstance(value, Path):
        return str(value)
    files = sorted(value.rglob("*")) if value.is_dir() else [value]
    return " ".join(_describe_file(file) for file in files if file.is_file())


def _describe_file(file: Path) -> str:
    status = file.stat()
    if status.st_size > 16 * 2**20:
        return f"{file.name}:{status.st_size}:{status.st_mtime_ns}"
    return f"{file.name}:{sha256(file)}"


def sha256(file: Path) -> str:
    """The digest of the file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()
