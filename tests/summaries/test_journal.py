"""Journals of many owners: who finds which, and how long they are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

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


def test_folders_of_owners_who_have_none_left_go(tmp_path: Path) -> None:
    journal = Journal(journals_of("ann", tmp_path), {})
    journal.add("part 0", "{}")
    journal.remove()
    os.utime(journals_of("ann", tmp_path), (0, time.time() - 100))
    sweep_journals(tmp_path, expiry_seconds=60)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_has_so_many_bytes_at_most(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path, {}, max_bytes=1000)
    for number in range(50):
        journal.add(f"part {number}", "words " * 10)
    (path,) = tmp_path.iterdir()
    assert 900 < path.stat().st_size <= 1000
    assert len(caplog.records) == 1
    assert journal.get("part 49") == "words " * 10
    assert 0 < len(Journal(tmp_path, {}, max_bytes=1000)) < 50
    path.write_bytes(b"x" * 10_000)
    assert len(Journal(tmp_path, {}, max_bytes=1000)) == 0


def test_an_owner_has_so_many_journals_at_most(tmp_path: Path) -> None:
    for number in range(5):
        Journal(tmp_path, {"number": number}, max_journals=3).add("part 0", str(number))
        for path in tmp_path.iterdir():
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert len(list(tmp_path.iterdir())) == 3
    known = [Journal(tmp_path, {"number": number}, max_journals=100).get("part 0") for number in range(5)]
    assert known == [None, None, "2", "3", "4"]


def test_journals_are_for_their_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Journal(tmp_path / "journals" / "ann", {}).add("part 0", "{}")
    finally:
        os.umask(before)
    for path in (tmp_path / "journals").rglob("*"):
        assert not path.stat().st_mode & 0o077, path
    assert not (tmp_path / "journals").stat().st_mode & 0o077


def test_answers_of_any_characters_are_kept(tmp_path: Path) -> None:
    Journal(tmp_path, {}).add("part 0", "Köln 東京 \ud800")
    assert Journal(tmp_path, {}).get("part 0") == "Köln 東京 \ud800"
