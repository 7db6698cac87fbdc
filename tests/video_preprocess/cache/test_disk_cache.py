"""The cache of videos: a second question decodes nothing and sees the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.cache.disk_cache import DiskCache, digest
from preprocess.chunks.video_patches import temporal_patches
from preprocess.media.attachment import Attachment
from preprocess.plan.selection import Selection, select_video
from preprocess.request.options import VideoOptions
from preprocess.settings import Settings
from preprocess.workers.serialise import pack_video, unpack_video
from tests.support import media, readers

Ask = Callable[..., tuple[Selection, list[np.ndarray]]]


def _go_on() -> None:
    """Nothing interrupts."""


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache", max_bytes=1 << 24)


@pytest.fixture
def ask(tmp_path: Path, settings: Settings, cache: DiskCache) -> Ask:
    """What a request about a video looks at, and its patches."""

    def ask(source: bytes | str, **options: Any) -> tuple[Selection, list[np.ndarray]]:
        reader = readers.reader(tmp_path, 1 << 20, cache=cache)
        video = reader.video(Attachment("video", "v", source), thumbnails=True, subtitles=True)
        look = select_video(video, VideoOptions(**{"max_frames": 6, **options}), settings)
        return look, list(temporal_patches(look, settings.patching, reader))

    return ask


@pytest.mark.parametrize("name", ["a.mp4", "variable.mkv", "counted.avi"])
def test_a_second_question_opens_nothing_and_sees_the_same(tmp_path: Path, ask: Ask, name: str) -> None:
    media.make_video(tmp_path / name, variable=name == "variable.mkv", codec="mpeg4" if "avi" in name else "libx264")
    for source in (name, (tmp_path / name).read_bytes()):
        first, patches = ask(source)
        with pytest.MonkeyPatch.context() as context:
            context.setattr("preprocess.workers.reader.Reader._asked", None)
            second, again = ask(source)
            with pytest.raises(TypeError, match="not callable"):
                ask(source, start=0.5)
        assert second.medium == first.medium
        np.testing.assert_array_equal(again, patches)


def test_a_file_that_changed_is_another(tmp_path: Path, ask: Ask) -> None:
    media.make_video(tmp_path / "a.mp4", seed=1)
    _, patches = ask("a.mp4")
    media.make_video(tmp_path / "a.mp4", seed=2)
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    _, others = ask("a.mp4")
    assert not np.array_equal(patches, others)


def test_what_was_not_taken_to_its_end_is_not_kept(tmp_path: Path, cache: DiskCache) -> None:
    def patches(count: int) -> Iterator[np.ndarray]:
        for number in range(count):
            yield np.full((4, 8), number, np.uint8)
        raise InterruptedError

    taking = cache.patches("k", (3, 4, 8), patches(9))
    next(taking)
    taking.close()  # type: ignore[attr-defined]
    with pytest.raises(InterruptedError):
        list(cache.patches("k", (3, 4, 8), patches(2)))
    assert list(cache.folder.iterdir()) == []


def test_who_has_the_last_one_need_not_ask_for_more(cache: DiskCache) -> None:
    patches = [np.full((4, 8), number, np.uint8) for number in range(3)]
    taking = cache.patches("k", (3, 4, 8), iter(patches))
    for _ in patches:
        next(taking)
    np.testing.assert_array_equal(list(cache.patches("k", (3, 4, 8), iter([]))), patches)


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=330)
    for number, key in enumerate("abc"):
        cache.write(key, b"x" * 80)
        os.utime(tmp_path / key, (number, number))
    assert cache.read("a") == b"x" * 80
    cache.write("d", b"x" * 80)
    assert cache.read("b") is None
    assert all(cache.read(key) for key in "acd")
    cache.write("large", b"x" * 330)
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_files_is_bounded_and_the_latest_stay(tmp_path: Path) -> None:
    for number in range(20_000):
        (tmp_path / f"{number:05}").write_bytes(b"")
        os.utime(tmp_path / f"{number:05}", (number, number))
    DiskCache(tmp_path, max_bytes=1 << 30).write("new", b"x")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) <= 16_384
    assert left[0] > "03000"
    assert left[-2:] == ["19999", "new"]


def test_what_is_there_is_looked_at_now_and_then_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    scandir, iterdir = os.scandir, Path.iterdir
    monkeypatch.setattr(os, "scandir", lambda folder: looks.append(folder) or scandir(folder))
    monkeypatch.setattr(Path, "iterdir", lambda folder: looks.append(folder) or iterdir(folder))
    cache = DiskCache(tmp_path, max_bytes=100_000)
    for number in range(500):
        cache.write(f"small {number}", b"")
    assert len(looks) == 1
    for number in range(500):
        cache.write(f"larger {number}", bytes(1000))
    # Each time that there is too much, a tenth goes: ten of these.
    assert 30 <= len(looks) <= 60
    assert 80_000 < sum(path.stat().st_size for path in tmp_path.glob("*")) <= 100_000


def test_what_others_write_to_the_folder_is_seen(tmp_path: Path) -> None:
    first, second = (DiskCache(tmp_path, max_bytes=50_000) for _ in range(2))
    first.write("first", b"")
    for number in range(40):
        second.write(f"second {number}", bytes(1000))
    for _ in range(2000):
        first.write("again", b"")
    for number in range(20):
        first.write(f"first {number}", bytes(1000))
    assert sum(path.stat().st_size for path in tmp_path.glob("*")) <= 50_000


def test_a_folder_that_takes_nothing_costs_no_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = DiskCache(tmp_path / "file" / "folder", max_bytes=1 << 20)
    patches = [np.full((4, 8), number, np.uint8) for number in range(3)]
    np.testing.assert_array_equal(list(cache.patches("k", (3, 4, 8), iter(patches))), patches)
    assert cache.read("k") is None


def test_many_at_once(cache: DiskCache) -> None:
    patches = [np.full((4, 8), number, np.uint8) for number in range(50)]
    failed: list[int] = []

    def take(number: int) -> None:
        if not np.array_equal(list(cache.patches("k", (50, 4, 8), iter(patches))), patches):
            failed.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [path.name for path in cache.folder.iterdir()] == ["k"]


def test_a_video_survives_packing(tmp_path: Path) -> None:
    media.make_video(tmp_path / "a.mkv", variable=True, start_offset_seconds=0.5, audio=True)
    attachment = Attachment("video", "v", "a.mkv")
    video = readers.reader(tmp_path, 1 << 20).video(attachment, thumbnails=False, subtitles=True)
    again = unpack_video(pack_video(video), attachment)
    assert again.size == video.size
    for name, value in vars(video.timeline).items():
        np.testing.assert_array_equal(getattr(again.timeline, name), value, err_msg=name)


def test_digests_differ_with_every_part() -> None:
    digests = [digest("a", 1), digest("a", 2), digest("b", 1), digest("a"), digest("a1"), digest(b"a", 1)]
    assert len(set(digests)) == len(digests)
