"""Who may speak to stage 3: stage 1, which signs with the key that both stages read."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engines.errors import RequestError
from preprocess import signing
from preprocess.signing import Signer
from sessions import signatures
from sessions.signatures import Signatures

IDS = np.arange(5, dtype=np.int32)
POSITIONS = np.arange(20, dtype=np.int32).reshape(4, 5)[:3]
NONE, NOWHERE = np.zeros(0, np.int32), np.zeros((3, 0), np.int32)


@pytest.mark.parametrize(("ids", "positions"), [(IDS, POSITIONS), (IDS[1:3], POSITIONS[:, 1:3]), (NONE, NOWHERE)])
def test_stage_3_takes_what_stage_1_signs(tmp_path: Path, ids: np.ndarray, positions: np.ndarray) -> None:
    signed = Signer(tmp_path).signed('{"a": "é"}', ids, positions).encode()
    assert Signatures(tmp_path).checked(signed, ids, positions) == '{"a": "é"}'


def test_nothing_else_is_taken(tmp_path: Path) -> None:
    signer, checks = Signer(tmp_path / "own"), Signatures(tmp_path / "own")
    signed = signer.signed("{}", IDS, POSITIONS).encode()
    other = Signer(tmp_path / "other").signed("{}", IDS, POSITIONS).encode()
    more = np.append(IDS, 0).astype(np.int32)
    wrong = [
        (b"{}", IDS, POSITIONS),
        (b"", IDS, POSITIONS),
        (b"0" * 64 + b"{}", IDS, POSITIONS),
        (b"\xff" * 64 + b"{}", IDS, POSITIONS),
        (signed + b" ", IDS, POSITIONS),
        (signed.upper(), IDS, POSITIONS),
        (signed, IDS + 1, POSITIONS),
        (signed, IDS, POSITIONS + 1),
        (signed, more, POSITIONS.reshape(-1)[1:].reshape(2, 7)),
        (signed, NONE, NOWHERE),
        (other, IDS, POSITIONS),
    ]
    for header, ids, positions in wrong:
        with pytest.raises(
            RequestError, match=r"^invalid_argument: chunk_header is not signed by stage 1; requests go to"
        ):
            checks.checked(header, ids, positions)
    assert checks.checked(signed, IDS, POSITIONS) == "{}"


@pytest.mark.parametrize("shared_key", [signing.shared_key, signatures.shared_key])
def test_a_key_that_others_may_know_is_refused(tmp_path: Path, shared_key: Callable[[Path], bytes]) -> None:
    assert len(shared_key(tmp_path)) == 32
    key = tmp_path / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    for mode in (0o640, 0o604, 0o620):
        key.chmod(mode)
        with pytest.raises(PermissionError, match="is not a file that user"):
            shared_key(tmp_path)
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(PermissionError, match="has 5 bytes; a key of 32 is accepted"):
        shared_key(tmp_path)
    key.rename(tmp_path / "elsewhere")
    key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        shared_key(tmp_path)
    key.unlink()
    os.mkfifo(key, 0o600)
    with pytest.raises(PermissionError, match="is not a file that user"):
        shared_key(tmp_path)


def test_a_key_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Signer(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    for made in (Signer, Signatures):
        with pytest.raises(PermissionError, match="is not a file that user 12345 alone can read and write"):
            made(tmp_path)


def test_stages_that_come_at_once_have_the_same_key(tmp_path: Path) -> None:
    makers = [signing.shared_key, signatures.shared_key] * 8
    for number in range(20):
        folder = tmp_path / str(number)
        with ThreadPoolExecutor(len(makers)) as pool:
            keys = list(pool.map(lambda make, folder=folder: make(folder), makers))
        assert len(set(keys)) == 1
        assert [path.name for path in folder.iterdir()] == ["key"]


def test_a_key_that_was_tidied_away_is_made_again_for_both(tmp_path: Path) -> None:
    signer, checks = Signer(tmp_path), Signatures(tmp_path)
    (tmp_path / "key").unlink()
    assert checks.checked(signer.signed("{}", IDS, POSITIONS).encode(), IDS, POSITIONS) == "{}"
