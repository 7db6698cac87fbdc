"""Journals of many owners: who finds which, and how long they are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

from qwen3_vl_client.summaries import journals_of, sweep_journals
from qwen3_vl_client.summaries.journal import Journal


def test_owners_have_folders_of_their_own(tmp_path: Path) -> None:
    owners = ("ann", "bob", "../ann", "ann/../bob")
    folders = {journals_of(owner, tmp_path) for owner in owners}
    assert len(folders) == len(owners)
    assert {folder.parent for folder in folders} == {tmp_path}


def test_what_is_old_goes(tmp_path: Path) -> None:
    for owner in ("ann", "bob"):
        Journal(journals_of(owner, tmp_path), {}).add("part 0", "{}")
    old, new = sorted(tmp_path.glob("*/*"))
    os.utime(old, (0, time.time() - 100))
    sweep_journals(tmp_path, expiry_seconds=60)
    assert list(tmp_path.glob("*/*")) == [new]
