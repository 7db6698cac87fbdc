"""Answers on disk, so that a summary that was interrupted goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..disk import open_private, private_folder

_log = logging.getLogger(__name__)

MAX_JOURNAL_BYTES = 16 * 2**20
"""Of one journal: the answers about 100 hours."""
MAX_JOURNALS = 128
"""In one folder, which is one owner's."""


class Journal:
    """The answers to one summary's requests, a line of JSON each, in a file named after video and options.

    Without a folder nothing is kept, nor when the disk is full: the summary goes on without. Appending is all that is
    done to the file, and a line that was torn by a crash is passed over.
    """

    def __init__(
        self,
        folder: Path | None,
        key: Mapping[str, Any],
        *,
        max_bytes: int = MAX_JOURNAL_BYTES,
        max_journals: int = MAX_JOURNALS,
    ) -> None:
        """`key` is what answers depend on: the same key finds the same file. In a folder with `max_journals` the one
        that was added to longest ago makes room."""
        self._path: Path | None = None
        self._continues = True
        self._answers: dict[str, str] = {}
        self._max_bytes = max_bytes
        if folder is None:
            return
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        path = folder / f"{digest[:32]}.jsonl"
        try:
            private_folder(folder)
            self._answers = _read(path, max_bytes)
            if not path.exists():
                _make_room(folder, max_journals)
        except OSError as error:
            _log.warning("the journals in %s are not used: %s", folder, error)
        else:
            self._path = path

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, step: str) -> str | None:
        """The answer to a request, if it was given."""
        return self._answers.get(step)

    def add(self, step: str, answer: str) -> None:
        """Keeps an answer."""
        self._answers[step] = answer
        if self._path is None or not self._continues:
            return
        line = "\n" + json.dumps({"step": step, "answer": answer})
        try:
            with open(self._path, "a", encoding="utf-8", opener=open_private) as file:
                if file.tell() + len(line) > self._max_bytes:
                    raise OSError(f"it has {file.tell():,} of at most {self._max_bytes:,} bytes")
                file.write(line)
        except OSError as error:
            _log.warning("the journal %s is not continued: %s", self._path, error)
            self._continues = False

    def remove(self) -> None:
        """The summary is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def journals_of(owner: str, folder: Path) -> Path:
    """Where below `folder` the journals of one owner are, whatever the owner is called."""
    return folder / hashlib.sha256(owner.encode()).hexdigest()[:32]


def sweep_journals(folder: Path, expiry_seconds: float) -> None:
    """Removes what was added to so long ago, of all owners, and the folders of those who have none left."""
    for journal in folder.glob("*/*.jsonl"):
        try:
            if journal.stat().st_mtime < time.time() - expiry_seconds:
                journal.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the journal %s cannot be removed: %s", journal, error)
    for owners in folder.glob("*"):
        # One that is not empty stays.
        with contextlib.suppress(OSError):
            if owners.stat().st_mtime < time.time() - expiry_seconds:
                owners.rmdir()


def _make_room(folder: Path, max_journals: int) -> None:
    journals = sorted(folder.glob("*.jsonl"), key=lambda journal: journal.stat().st_mtime)
    for journal in journals[: max(len(journals) - max_journals + 1, 0)]:
        journal.unlink(missing_ok=True)


def _read(path: Path, max_bytes: int) -> dict[str, str]:
    answers: dict[str, str] = {}
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(max_bytes)
        for line in text.split("\n"):
            try:
                entry = json.loads(line)
                answers[entry["step"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                continue
    return answers
