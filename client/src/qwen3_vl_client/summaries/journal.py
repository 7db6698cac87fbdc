"""Answers on disk, so that a summary that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """The answers to one summary's requests, a line of JSON each, in a file named after video and options.

    Without a folder nothing is kept. Appending is all that is done to the file, and a line that was torn by a crash
    is passed over.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        """`key` is what answers depend on: the same key finds the same file."""
        self._path: Path | None = None
        self._answers: dict[str, str] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
            self._path = folder / f"{digest[:32]}.jsonl"
            self._answers = _read(self._path)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, step: str) -> str | None:
        """The answer to a request, if it was given."""
        return self._answers.get(step)

    def add(self, step: str, answer: str) -> None:
        """Keeps an answer."""
        self._answers[step] = answer
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"step": step, "answer": answer}, ensure_ascii=False))

    def remove(self) -> None:
        """The summary is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def journals_of(owner: str, folder: Path) -> Path:
    """Where below `folder` the journals of one owner are, whatever the owner is called."""
    return folder / hashlib.sha256(owner.encode()).hexdigest()[:32]


def sweep_journals(folder: Path, expiry_seconds: float) -> None:
    """Removes what was added to so long ago, of all owners."""
    for journal in folder.glob("*/*.jsonl"):
        if journal.stat().st_mtime < time.time() - expiry_seconds:
            journal.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, str]:
    answers: dict[str, str] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                entry = json.loads(line)
                answers[entry["step"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                continue
    return answers
