import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from qwen3_vl_client import InvalidRequest, NotFound
from qwen3_vl_client import uploads as uploads_module
from qwen3_vl_client.uploads import QuotaExceeded, StoredFile, Uploads

MIB = 2**20


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Uploads]:
    def make(quota_bytes: int = 64 * MIB, capacity_bytes: int = 256 * MIB, expiry_seconds: float = 3600) -> Uploads:
        return Uploads(
            tmp_path / "uploads",
            quota_bytes=quota_bytes,
            capacity_bytes=capacity_bytes,
            expiry_seconds=expiry_seconds,
        )

    return make


def put(uploads: Uploads, owner: str, content: bytes, name: str = "clip.mp4") -> StoredFile:
    with uploads.begin(owner) as upload:
        for start in range(0, len(content), MIB):
            upload.write(content[start : start + MIB])
        return upload.finish(name)


def on_disk(uploads: Uploads) -> list[bytes]:
    return [
        path.read_bytes() for path in sorted(uploads.folder.rglob("*")) if path.is_file() and "index" not in path.name
    ]


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(uploads_module.time, "time", lambda: self.now)


def test_what_was_uploaded_is_there(make: Callable[..., Uploads]) -> None:
    uploads = make()
    content = bytes(range(256)) * (5 * MIB // 256)
    stored = put(uploads, "ann", content, "Ferien in Köln.mp4")
    assert (stored.name, stored.size_bytes, stored.owner) == ("Ferien in Köln.mp4", len(content), "ann")
    assert stored.path.read_bytes() == content
    assert stored.path.is_relative_to(uploads.folder)
    assert stored.expires == stored.created + 3600
    assert uploads.find("ann", stored.id) == stored


def test_equal_contents_are_kept_once_until_the_last_is_deleted(make: Callable[..., Uploads]) -> None:
    uploads = make()
    first, second = put(uploads, "ann", b"same"), put(uploads, "bob", b"same")
    assert first.path == second.path
    assert on_disk(uploads) == [b"same"]
    uploads.delete("ann", first.id)
    assert second.path.read_bytes() == b"same"
    uploads.delete("bob", second.id)
    assert on_disk(uploads) == []


def test_files_are_their_owners_only(make: Callable[..., Uploads]) -> None:
    uploads = make()
    stored = put(uploads, "ann", b"secret")
    mine = put(uploads, "bob", b"secret")
    with pytest.raises(NotFound, match=stored.id):
        uploads.find("bob", stored.id)
    with pytest.raises(NotFound, match=stored.id):
        uploads.delete("bob", stored.id)
    assert uploads.files("bob") == [mine]
    assert uploads.files("ann") == [stored]


def test_listed_oldest_first(make: Callable[..., Uploads]) -> None:
    uploads = make()
    stored = [put(uploads, "ann", str(number).encode()) for number in range(5)]
    assert uploads.files("ann") == stored


def test_an_upload_that_is_given_up_leaves_nothing(make: Callable[..., Uploads]) -> None:
    uploads = make()
    with uploads.begin("ann") as upload:
        upload.write(b"half")
        assert uploads.files("ann") == []
        with pytest.raises(NotFound):
            uploads.find("ann", upload.id)
        assert on_disk(uploads)
    assert on_disk(uploads) == []


def test_an_empty_file_is_refused(make: Callable[..., Uploads]) -> None:
    uploads = make()
    with pytest.raises(InvalidRequest, match="empty"), uploads.begin("ann") as upload:
        upload.finish("clip.mp4")
    assert on_disk(uploads) == []


def test_quota_is_each_owners_and_says_what_is_held(make: Callable[..., Uploads]) -> None:
    uploads = make(quota_bytes=3 * MIB)
    stored = put(uploads, "ann", b"a" * 2 * MIB)
    with pytest.raises(QuotaExceeded, match=r"your files hold 3,145,728 bytes.* at most 3,145,728"):
        put(uploads, "ann", b"b" * 2 * MIB)
    assert len(put(uploads, "ann", b"c" * MIB).path.read_bytes()) == MIB
    assert put(uploads, "bob", b"b" * 3 * MIB)
    uploads.delete("ann", stored.id)
    assert put(uploads, "ann", b"b" * 2 * MIB)


def test_capacity_is_everybodys_and_counts_equal_contents_once(make: Callable[..., Uploads]) -> None:
    uploads = make(quota_bytes=4 * MIB, capacity_bytes=4 * MIB)
    put(uploads, "ann", b"a" * 2 * MIB)
    put(uploads, "bob", b"a" * 2 * MIB)
    put(uploads, "eve", b"e" * MIB)
    with pytest.raises(QuotaExceeded, match="all files on this server"):
        put(uploads, "eve", b"f" * 2 * MIB)


def test_uploads_at_the_same_time_do_not_exceed_the_quota_together(make: Callable[..., Uploads]) -> None:
    uploads = make(quota_bytes=8 * MIB)
    outcomes: list[str] = []

    def upload(letter: bytes) -> None:
        try:
            put(uploads, "ann", letter * 3 * MIB)
        except QuotaExceeded:
            outcomes.append("refused")
        else:
            outcomes.append("stored")

    threads = [threading.Thread(target=upload, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert 1 <= outcomes.count("stored") <= 2
    assert sum(len(content) for content in on_disk(uploads)) == outcomes.count("stored") * 3 * MIB


def test_an_expired_file_is_gone_at_once_and_swept_later(
    make: Callable[..., Uploads], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    uploads = make(expiry_seconds=60)
    stored = put(uploads, "ann", b"old")
    clock.now += 30
    kept = put(uploads, "ann", b"young")
    clock.now += 31
    with pytest.raises(NotFound):
        uploads.find("ann", stored.id)
    assert uploads.files("ann") == [kept]
    assert uploads.sweep() == 1
    assert on_disk(uploads) == [b"young"]
    assert uploads.sweep() == 0


def test_a_file_may_ask_for_less_time_but_not_for_more(
    make: Callable[..., Uploads], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    uploads = make(expiry_seconds=60)
    for asked, given in ((10, 10), (600, 60)):
        with uploads.begin("ann") as upload:
            upload.write(b"x")
            assert upload.finish("clip.mp4", expiry_seconds=asked).expires == clock.now + given


def test_what_a_killed_process_left_is_swept(make: Callable[..., Uploads], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    uploads = make()
    abandoned = uploads.begin("ann")
    abandoned.write(b"half")
    assert make().sweep() == 0
    clock.now += 2 * 3600
    assert make().sweep() == 1
    assert on_disk(uploads) == []
    with pytest.raises(NotFound, match="given up"):
        abandoned.finish("clip.mp4")


def test_the_index_outlives_its_process(make: Callable[..., Uploads]) -> None:
    stored = put(make(), "ann", b"kept")
    assert make().find("ann", stored.id) == stored


def test_a_failed_transaction_changes_nothing(make: Callable[..., Uploads]) -> None:
    uploads = make()
    stored = put(uploads, "ann", b"kept")
    stored.path.unlink()
    stored.path.mkdir()
    with pytest.raises(OSError):
        uploads.delete("ann", stored.id)
    assert uploads.find("ann", stored.id) == stored
    with sqlite3.connect(uploads.folder / "index.sqlite") as index:
        assert index.execute("SELECT count(*) FROM files").fetchone() == (1,)
