import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen3_vl_client import InvalidRequest, NotFound
from qwen3_vl_client.uploads import DiskFull, QuotaExceeded, StoredFile, TooManyUploads, Uploads

MIB = 2**20


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Uploads]:
    def make(
        quota_bytes: int = 64 * MIB, capacity_bytes: int = 256 * MIB, expiry_seconds: float = 3600, **bounds: int
    ) -> Uploads:
        return Uploads(
            tmp_path / "uploads",
            quota_bytes=quota_bytes,
            capacity_bytes=capacity_bytes,
            expiry_seconds=expiry_seconds,
            **bounds,
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
        monkeypatch.setattr(time, "time", lambda: self.now)


def test_what_was_uploaded_is_there(make: Callable[..., Uploads]) -> None:
    uploads = make()
    content = bytes(range(256)) * (5 * MIB // 256)
    stored = put(uploads, "ann", content, "Ferien in Köln.mp4")
    assert (stored.name, stored.size_bytes, stored.owner) == ("Ferien in Köln.mp4", len(content), "ann")
    assert stored.path.read_bytes() == content
    assert stored.path.is_relative_to(uploads.folder)
    assert stored.expires == stored.created + 3600
    assert uploads.find("ann", stored.id) == stored


def test_equal_contents_of_an_owner_are_kept_once_until_the_last_is_deleted(make: Callable[..., Uploads]) -> None:
    uploads = make()
    first, second = put(uploads, "ann", b"same"), put(uploads, "ann", b"same")
    assert first.path == second.path
    assert on_disk(uploads) == [b"same"]
    uploads.delete("ann", first.id)
    assert second.path.read_bytes() == b"same"
    uploads.delete("ann", second.id)
    assert on_disk(uploads) == []


def test_owners_of_equal_contents_share_no_file(make: Callable[..., Uploads]) -> None:
    uploads = make()
    first, second = put(uploads, "ann", b"same"), put(uploads, "bob", b"same")
    assert first.path != second.path
    assert on_disk(uploads) == [b"same", b"same"]
    uploads.delete("ann", first.id)
    assert second.path.read_bytes() == b"same"


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


@pytest.mark.parametrize("guess", [b"a", b"b"], ids=["another has it", "nobody has it"])
def test_room_tells_nothing_of_what_others_have(make: Callable[..., Uploads], guess: bytes) -> None:
    uploads = make(quota_bytes=4 * MIB, capacity_bytes=5 * MIB)
    put(uploads, "ann", b"a" * 2 * MIB)
    # Whether the guess is right shows neither in whether it is taken, nor in what is taken after it.
    guessed = put(uploads, "eve", guess * 2 * MIB)
    with pytest.raises(QuotaExceeded, match="all files on this server") as refused:
        put(uploads, "eve", b"f" * 2 * MIB)
    assert not any(character.isdigit() for character in refused.value.message)
    with pytest.raises(QuotaExceeded, match="all files on this server"):
        put(uploads, "eve", guess * 2 * MIB)
    uploads.delete("eve", guessed.id)
    assert put(uploads, "eve", b"f" * 2 * MIB)


def test_how_much_the_disk_holds_is_nobodys_to_know(make: Callable[..., Uploads]) -> None:
    uploads = make(min_free_bytes=2**60)
    with pytest.raises(DiskFull) as refused:
        put(uploads, "ann", b"a")
    assert refused.value.message == (
        "the server's disk has no room for this file, as 1,152,921,504,606,846,976 bytes are kept free;"
        " delete files, or wait until some expire"
    )


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


UPLOADING = """
import sys, time
from pathlib import Path
from qwen3_vl_client.uploads import Uploads
uploads = Uploads(Path(sys.argv[1]), quota_bytes=2**30, capacity_bytes=2**30, expiry_seconds=3600)
upload = uploads.begin("ann")
upload.write(b"half")
print("written", flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_left_is_swept(make: Callable[..., Uploads]) -> None:
    uploads = make()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOADING, str(uploads.folder)], stdout=subprocess.PIPE, env=environment
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert uploads.sweep() == 0
        process.send_signal(signal.SIGKILL)
    assert on_disk(uploads) == [b"half"]
    assert uploads.sweep() == 1
    assert on_disk(uploads) == []


def test_an_upload_outlives_a_clock_that_is_set(make: Callable[..., Uploads], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    uploads = make()
    for days in (1, -2):
        with uploads.begin("ann") as upload:
            upload.write(b"half")
            clock.now += days * 86_400
            assert (uploads.sweep(), make().sweep()) == (0, 0)
            upload.write(str(days).encode())
            stored = upload.finish("clip.mp4")
        assert uploads.find("ann", stored.id).path.read_bytes() == f"half{days}".encode()
        assert stored.expires > stored.created > 0


def test_files_outlive_a_clock_that_is_set_ahead_and_back(
    make: Callable[..., Uploads], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    uploads = make()
    stored = put(uploads, "ann", b"kept")
    clock.now += 86_400
    assert uploads.sweep() == uploads.sweep() == 0
    clock.now -= 86_400
    assert uploads.sweep() == 0
    assert uploads.find("ann", stored.id).path.read_bytes() == b"kept"


def test_what_a_crash_left_unknown_is_swept_when_it_is_old(make: Callable[..., Uploads]) -> None:
    uploads = make()
    kept = put(uploads, "ann", b"kept")
    os.utime(kept.path, (0, 0))
    for folder, name in (("content/ab", "ab" + "0" * 62), ("partial", "file-" + "0" * 32)):
        (uploads.folder / folder).mkdir(exist_ok=True)
        for suffix, age in (("old", 2 * 3600), ("young", 60)):
            path = uploads.folder / folder / f"{name[:-5]}{suffix:0>5}"
            path.write_bytes(suffix.encode())
            os.utime(path, (time.time() - age, time.time() - age))
    uploads.sweep()
    assert sorted(on_disk(uploads)) == [b"kept", b"young", b"young"]


def test_a_file_whose_content_is_gone_is_gone(make: Callable[..., Uploads]) -> None:
    uploads = make()
    stored = put(uploads, "ann", b"kept")
    stored.path.unlink()
    with pytest.raises(NotFound, match=stored.id):
        uploads.find("ann", stored.id)
    uploads.delete("ann", stored.id)
    assert uploads.files("ann") == []


def test_everything_is_for_the_servers_user_only(make: Callable[..., Uploads]) -> None:
    before = os.umask(0)
    try:
        uploads = make()
        upload = uploads.begin("ann")
        upload.write(b"half")
        put(uploads, "ann", b"kept")
        written = [uploads.folder, *uploads.folder.rglob("*")]
    finally:
        os.umask(before)
    assert {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm", upload.id} < {path.name for path in written}
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_others_could_read_before_they_cannot_now(make: Callable[..., Uploads]) -> None:
    uploads = make()
    put(uploads, "ann", b"kept")
    for path in (uploads.folder, *uploads.folder.glob("*")):
        path.chmod(0o777)
    make()
    for path in (uploads.folder, *uploads.folder.glob("*")):
        assert not path.stat().st_mode & 0o077, path


def test_an_owner_has_so_many_files_and_uploads_at_most(make: Callable[..., Uploads]) -> None:
    uploads = make(max_files=3, max_at_once=2)
    stored = put(uploads, "ann", b"a")
    with uploads.begin("ann"), uploads.begin("ann"):
        with pytest.raises(TooManyUploads, match="at most 2 at once"):
            uploads.begin("ann")
        put(uploads, "bob", b"b")
    put(uploads, "ann", b"b")
    put(uploads, "ann", b"c")
    with pytest.raises(QuotaExceeded, match="you have 3 files of at most 3"):
        uploads.begin("ann")
    uploads.delete("ann", stored.id)
    put(uploads, "ann", b"d")


@pytest.mark.parametrize("name", ["a\nb.mp4", "a\x00.mp4", "\x1b[31m.mp4", "\ud800.mp4", "a\u2028b"])
def test_names_that_cannot_be_shown_are_refused(make: Callable[..., Uploads], name: str) -> None:
    uploads = make()
    with pytest.raises(InvalidRequest, match="without control characters"):
        put(uploads, "ann", b"x", name)
    assert on_disk(uploads) == []


@pytest.mark.parametrize("id", ["", "\ud800", "file-\ud800", "x" * 100_000, "file-" + "G" * 32, "\x00"])
def test_what_is_no_id_is_no_file(make: Callable[..., Uploads], id: str) -> None:
    uploads = make()
    with pytest.raises(NotFound):
        uploads.find("ann", id)
    with pytest.raises(NotFound):
        uploads.delete("ann", id)
    with pytest.raises(NotFound):
        uploads.files("ann", after=id)


def test_lists_go_on_after_a_file(make: Callable[..., Uploads]) -> None:
    uploads = make()
    stored = [put(uploads, "ann", str(number).encode()) for number in range(6)]
    put(uploads, "bob", b"theirs")
    assert uploads.files("ann", limit=2) == stored[:2]
    assert uploads.files("ann", after=stored[1].id, limit=3) == stored[2:5]
    assert uploads.files("ann", after=stored[3].id, newest_first=True) == stored[2::-1]
    assert uploads.files("ann", purpose="vision") == []
    assert uploads.files("ann", purpose="user_data", after=stored[5].id) == []


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
