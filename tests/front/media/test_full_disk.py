"""The disk of the uploads is full: whoever needs room is told, everybody else goes on, and with room all is well."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.settings import Settings
from qwen3_vl_client.summaries.journal import Journal
from qwen3_vl_client.uploads import DiskFull, StoredFile, Uploads
from tests.support.disks import filled, make_read_only, small_disk
from tests.support.front import NOWHERE, served

MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "media", 64) as disk:
        yield disk


def open_uploads(disk: Path, expiry_seconds: float = 3600) -> Uploads:
    return Uploads(disk / "uploads", quota_bytes=256 * MIB, capacity_bytes=256 * MIB, expiry_seconds=expiry_seconds)


def put(uploads: Uploads, owner: str, content: bytes) -> StoredFile:
    with uploads.begin(owner) as upload:
        upload.write(content)
        return upload.finish("clip.mp4")


def left_behind(uploads: Uploads) -> list[Path]:
    return list((uploads.folder / "partial").iterdir())


def test_an_upload_that_meets_a_full_disk_ends_and_leaves_nothing(disk: Path) -> None:
    uploads = open_uploads(disk)
    kept = put(uploads, "ann", b"kept")
    with uploads.begin("ann") as upload:
        upload.write(bytes(MIB))
        with filled(disk), pytest.raises(DiskFull, match="no room for"):
            upload.write(bytes(MIB))
    assert left_behind(uploads) == []
    assert uploads.files("ann") == [kept]
    assert put(uploads, "ann", b"x" * MIB).path.stat().st_size == MIB
    assert uploads.sweep() == 0


def test_nothing_is_left_half_way_while_the_disk_is_full(disk: Path) -> None:
    uploads = open_uploads(disk)
    kept = put(uploads, "ann", b"kept")
    upload = uploads.begin("bob")
    upload.write(bytes(MIB))
    with filled(disk):
        for _ in range(3):
            assert uploads.files("ann") == [kept]
            assert uploads.find("ann", kept.id) == kept
            with pytest.raises(DiskFull):
                put(uploads, "ann", b"more")
            uploads.sweep()
        upload.__exit__(None, None, None)
        assert left_behind(uploads) == []
    assert uploads.sweep() <= 1
    assert uploads.files("bob") == []
    assert put(uploads, "bob", b"more").path.read_bytes() == b"more"


def test_what_expires_makes_room_on_a_full_disk(disk: Path) -> None:
    uploads = open_uploads(disk, expiry_seconds=0.2)
    contents = [put(uploads, "ann", bytes([letter]) * MIB).path for letter in b"abc"]
    with filled(disk):
        time.sleep(0.3)
        uploads.sweep()
        assert [path for path in contents if path.exists()] == []
        assert uploads.files("ann") == []
    uploads.sweep()
    assert uploads.sweep() == 0


def test_a_file_that_cannot_be_deleted_does_not_keep_the_others(disk: Path) -> None:
    uploads = open_uploads(disk, expiry_seconds=0.2)
    stored = [put(uploads, "ann", bytes([letter]) * MIB) for letter in b"abc"]
    stored[0].path.unlink()
    stored[0].path.mkdir()
    time.sleep(0.3)
    assert uploads.sweep() == 2
    stored[0].path.rmdir()
    assert uploads.sweep() == 1


def test_what_the_disk_cannot_hold_is_refused_before_it_is_written(disk: Path) -> None:
    uploads = open_uploads(disk)
    with pytest.raises(DiskFull, match="are kept free"):
        put(uploads, "ann", bytes(62 * MIB))
    assert put(uploads, "ann", bytes(58 * MIB))


def test_uploads_at_the_same_time_are_not_promised_the_same_room(disk: Path) -> None:
    uploads = open_uploads(disk)
    with uploads.begin("ann") as first, uploads.begin("bob") as second, uploads.begin("eve") as third:
        for upload in (first, second, third):
            upload.write(b"x")
        fourth = uploads.begin("dan")
        with fourth, pytest.raises(DiskFull):
            # 16 MiB are promised to each of the others.
            fourth.write(bytes(14 * MIB))


def test_the_api_tells_and_goes_on(disk: Path) -> None:
    app = create_app(Settings(media_root=disk, url=NOWHERE))
    with served(app) as url, httpx2.Client(base_url=url, timeout=60) as http:
        kept = http.post("/v1/files", files={"file": ("kept.mp4", b"kept")}).json()
        with filled(disk):
            for _ in range(3):
                refused = http.post("/v1/files", files={"file": ("more.mp4", bytes(MIB))})
                assert refused.status_code == 507, refused.text
                assert "disk has no room" in refused.json()["error"]["message"]
                assert refused.json()["error"]["type"] == "server_error"
                listed = http.get("/v1/files")
                assert [file["id"] for file in listed.json()["data"]] == [kept["id"]]
                assert http.get(f"/v1/files/{kept['id']}/content").content == b"kept"
        assert http.post("/v1/files", files={"file": ("more.mp4", bytes(MIB))}).status_code == 200
        assert list((disk / "uploads" / "partial").iterdir()) == []


def test_the_page_tells_and_goes_on(disk: Path) -> None:
    app = create_app(Settings(media_root=disk, url=NOWHERE))
    with served(app) as url, httpx2.Client(base_url=url, timeout=60) as http:
        http.get("/")
        kept = http.post("/files", params={"name": "kept.mp4"}, content=b"kept").json()
        with filled(disk):
            refused = http.post("/files", params={"name": "more.mp4"}, content=bytes(MIB))
            assert refused.status_code == 507, refused.text
            assert "disk has no room" in refused.json()["error"]["message"]
            assert [file["id"] for file in http.get("/files").json()] == [kept["id"]]
        assert http.post("/files", params={"name": "more.mp4"}, content=bytes(MIB)).status_code == 200


def test_a_summary_goes_on_without_its_journal(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(disk / "journals", {})
    journal.add("part 0", "first")
    with filled(disk):
        for number in range(1, 5):
            journal.add(f"part {number}", "more" * 5000)
    assert [journal.get(f"part {number}") for number in (0, 4)] == ["first", "more" * 5000]
    assert len(caplog.records) == 1
    assert Journal(disk / "journals", {}).get("part 0") == "first"
    journal.remove()
    assert list((disk / "journals").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(disk: Path) -> None:
    make_read_only(disk)
    with pytest.raises(OSError, match=str(disk)):
        open_uploads(disk)


def test_an_index_that_cannot_be_written_is_named(disk: Path) -> None:
    open_uploads(disk).close()
    make_read_only(disk)
    with pytest.raises(OSError, match=str(disk)):
        open_uploads(disk)
