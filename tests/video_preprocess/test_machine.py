"""A machine that fails: without handles, processes, threads, memory or disk a request fails, and the stage lives."""

from __future__ import annotations

import io
import logging
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocess import service as service_module
from preprocess.cache.disk_cache import DiskCache
from preprocess.chunks.chunks import Chunk
from preprocess.errors import InvalidArgumentError, ResourceExhaustedError
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library
from preprocess.quiet_log import OnceAMinute
from preprocess.request.request import Inputs
from preprocess.service import Service
from preprocess.workers.machine import memory_bytes, raise_file_limit
from preprocess.workers.pool import Workers
from preprocess.workers.reader import Reader
from preprocess.workers.worker import WorkerLimits
from tests.support import media, readers
from tests.support.recipient import Recipient, eventually

StartService = Callable[..., Service]
MakeRecipient = Callable[..., Recipient]
Encode = Callable[..., bytes]


def open_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def limited(kind: int, soft: int) -> Iterator[None]:
    before, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (before, hard))


@contextmanager
def few_handles(free: int) -> Iterator[None]:
    """Only so many more files can be opened."""
    taken = []
    with limited(resource.RLIMIT_NOFILE, open_handles() + 64):
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())
        try:
            yield
        finally:
            for handle in taken:
                os.close(handle)


@dataclass
class Elsewhere(Recipient):
    """Stage 3 has handles of its own, though here it is in the same process."""

    def send(self, header: str, chunk: Chunk) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with limited(resource.RLIMIT_NOFILE, hard):
            super().send(header, chunk)


def test_without_file_handles_requests_fail_and_the_stage_lives(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, parameters: Any
) -> None:
    service = start_service(cache_bytes=1 << 30, worker_limits=WorkerLimits(stall_seconds=3))
    inputs = [Inputs(text="?", videos=[encode(seed=seed)], images=[media.make_image()]) for seed in range(9)]
    warm = recipient()
    service.submit(inputs[-1], warm)
    assert warm.wait().error is None
    before = open_handles()
    failures = 0
    for free, asked in enumerate(inputs[:-1]):
        with few_handles(free):
            sent = Elsewhere(parameters.credits_directory)
            service.submit(asked, sent)
            sent.wait()
        if sent.error is not None:
            failures += 1
            assert sent.error.startswith("resource_exhausted: "), free
    assert failures > 2
    again = recipient()
    service.submit(inputs[0], again)
    assert again.wait().error is None
    eventually(lambda: open_handles() == before)


def test_a_worker_that_cannot_be_started_fails_what_waits_for_it(tmp_path: Path) -> None:
    workers = Workers(1, WorkerLimits(stall_seconds=1.5))
    reader = Reader(Library(tmp_path, 1 << 26), workers, readers.go_on)
    image = Attachment("image", "image[0]", media.make_image())
    try:
        with workers.lend(lambda: None) as busy:
            # All that it opens is open; the next worker finds nothing left.
            with (
                few_handles(1),
                pytest.raises(ResourceExhaustedError, match=r"no process .* for 1.5 s .*; retry later"),
            ):
                list(reader.image(image))
            assert busy.is_alive()
        (picture,) = reader.image(image)
        assert picture.shape == (64, 96, 3)
    finally:
        workers.shut_down()


def test_without_a_thread_a_request_fails_and_gives_its_place_back(
    start_service: StartService, recipient: MakeRecipient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start_service(max_requests=1)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for _ in range(2):
        with monkeypatch.context() as broken:
            broken.setattr(threading.Thread, "start", start)
            refused = recipient()
            service.submit(Inputs(text="?"), refused)
        assert refused.wait().error == (
            "resource_exhausted: the request cannot be served now (can't start new thread); retry later"
        )
    sent = recipient()
    service.submit(Inputs(text="?"), sent)
    assert sent.wait().error is None
    assert refused.chunks == []


def test_a_bomb_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    target = io.BytesIO()
    Image.new("RGB", (8192, 8192)).save(target, "PNG", compress_level=1)
    bomb = Attachment("image", "image[0]", target.getvalue())
    media.make_video(tmp_path / "a.mp4", frames=60)
    workers = Workers(1, WorkerLimits(memory_bytes=3 << 28))
    reader = Reader(Library(tmp_path, 1 << 26), workers, readers.go_on)
    try:
        video = reader.video(Attachment("video", "v", "a.mp4"), thumbnails=False, subtitles=False)
        frames = reader.frames(video, np.arange(60))
        next(frames)
        for _ in range(2):
            with pytest.raises(InvalidArgumentError, match=r"image\[0\] takes \d+ bytes of memory to read; at most"):
                list(reader.image(bomb))
        assert len(list(frames)) == 59
    finally:
        workers.shut_down()


@pytest.mark.parametrize("disk_bytes", [0, 10, 1000])
def test_a_full_disk_costs_no_answer(tmp_path: Path, disk_bytes: int, caplog: pytest.LogCaptureFixture) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    patches = [np.full((4, 80), number, np.uint8) for number in range(5)]
    with limited(resource.RLIMIT_FSIZE, disk_bytes):
        cache.write("a", bytes(2000))
        np.testing.assert_array_equal(list(cache.patches("k", (5, 4, 80), iter(patches))), patches)
    assert "a video is not cached" in caplog.text
    assert list(tmp_path.iterdir()) == []
    cache.write("a", b"there is room")
    assert cache.read("a") == b"there is room"


def test_what_the_disk_has_lost_a_part_of_is_read_again(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, tmp_path: Path
) -> None:
    service, inputs = start_service(cache_bytes=1 << 30), Inputs(text="?", videos=[encode()])
    answers = []
    for damage in (None, 0, 100):
        kept = list((tmp_path / "cache").iterdir())
        assert len(kept) == (0 if damage is None else 2)
        for file in kept:
            os.truncate(file, damage or 0)
        sent = recipient()
        service.submit(inputs, sent)
        assert sent.wait().error is None
        answers.append(np.concatenate([chunk.patches for _, chunk in sent.chunks[2:]]))
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])


def test_a_cache_folder_that_cannot_be_used_is_done_without(
    start_service: StartService,
    recipient: MakeRecipient,
    encode: Encode,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    service = start_service(cache_directory=tmp_path / "file" / "cache", cache_bytes=1 << 30)
    for _ in range(2):
        sent = recipient()
        service.submit(Inputs(text="?", videos=[encode()]), sent)
        assert sent.wait().error is None
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "no video is cached, for cache_directory cannot be used"
    ]


def test_what_is_written_is_this_users_own(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, tmp_path: Path
) -> None:
    before = os.umask(0o022)
    try:
        service = start_service(cache_bytes=1 << 30)
        sent = recipient()
        service.submit(Inputs(text="?", videos=[encode()]), sent)
        assert sent.wait().error is None
    finally:
        os.umask(before)
    written = [path for folder in ("credits", "cache") for path in (tmp_path / folder).rglob("*")]
    assert len(written) >= 2
    assert {oct(path.stat().st_mode & 0o777) for path in written} == {"0o600"}
    assert {oct((tmp_path / folder).stat().st_mode & 0o777) for folder in ("credits", "cache")} == {"0o700"}


def test_no_more_requests_are_accepted_than_have_handles(
    start_service: StartService, recipient: MakeRecipient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "raise_file_limit", lambda: 64 + 16)
    service = start_service()
    first, second = recipient(ends=False), recipient()
    service.submit(Inputs(text="?"), first)
    eventually(lambda: len(first.chunks) == 3)
    service.submit(Inputs(text="?"), second)
    assert str(second.wait().error).startswith("resource_exhausted: 1 requests are being served, as many as are")
    first.end()
    first.wait()


def test_as_many_files_may_be_opened_as_the_machine_allows() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with limited(resource.RLIMIT_NOFILE, 256):
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_the_memory_of_this_machine() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) << 10
    assert 64 << 20 < memory_bytes() <= total


def test_the_same_is_logged_once_a_minute() -> None:
    now = 0.0
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(OnceAMinute(lambda: now))
    log = logging.Logger("test")
    log.addHandler(handler)
    for second in range(130):
        now = float(second)
        log.warning("the disk is full: %s", f"error {second}")
        if second % 50 == 0:
            log.warning("something else")
    assert written.getvalue().splitlines() == [
        "the disk is full: error 0",
        "something else",
        "the disk is full: error 60 (59 more like it since the last time)",
        "something else (1 more like it since the last time)",
        "the disk is full: error 120 (59 more like it since the last time)",
    ]
