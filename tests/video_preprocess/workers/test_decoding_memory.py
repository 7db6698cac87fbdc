"""All that workers decode has one budget of memory: tasks count by their pictures, wait for room, or are refused."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from preprocess.errors import InvalidArgumentError
from preprocess.images.images import image_bytes
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library, video_bytes
from preprocess.media.size import Size
from preprocess.request.request import Inputs
from preprocess.service import Service
from preprocess.workers import reader as reader_module
from preprocess.workers.allowance import FIRST_BYTES
from preprocess.workers.channel import Exchange
from preprocess.workers.pool import Workers, most_memory
from preprocess.workers.process import Courier, _lacking
from preprocess.workers.reader import Reader
from preprocess.workers.worker import WorkerLimits
from tests.support import media, readers
from tests.support.recipient import Recipient, eventually

MIB = 1 << 20
IDLE_BYTES = 80 * MIB
"""Of a worker that has nothing to do, amply."""


def _go_on() -> None:
    """Nothing interrupts."""


@pytest.fixture
def start_workers() -> Iterator[Callable[..., Workers]]:
    """`start_workers(most, memory_bytes)`: with these bounds."""
    started: list[Workers] = []

    def start(most: int, memory_bytes: int | None = None, limits: WorkerLimits | None = None) -> Workers:
        started.append(Workers(1, limits or WorkerLimits(), most, memory_bytes))
        return started[-1]

    yield start
    for workers in started:
        workers.shut_down()


class Tasks:
    """Tasks in threads of their own, which hold a worker until they are told."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.running: list[str] = []
        self._tasks: list[tuple[str, threading.Event, threading.Thread]] = []

    def ask(self, owner: str, memory_bytes: int) -> None:
        over = threading.Event()

        def hold() -> None:
            with self._workers.lend(lambda: _end(over), owner, memory_bytes):
                self.running.append(owner)
                over.wait()
                self.running.remove(owner)

        before = self._asked()
        self._tasks.append((owner, over, threading.Thread(target=hold)))
        self._tasks[-1][2].start()
        eventually(lambda: self._asked() > before)

    def end(self, owner: str) -> None:
        first = next(task for task in self._tasks if task[0] == owner)
        self._tasks.remove(first)
        first[1].set()
        first[2].join()

    def _asked(self) -> int:
        return len(self._workers._waiting) + self._workers._held.total()


class EndedError(Exception):
    """A task that was given up while it waited."""


def _end(over: threading.Event) -> None:
    if over.is_set():
        raise EndedError


def settled(tasks: Tasks, running: list[str]) -> None:
    eventually(lambda: sorted(tasks.running) == sorted(running))
    threading.Event().wait(0.3)
    assert sorted(tasks.running) == sorted(running)


def test_tasks_wait_until_there_is_the_memory_for_them(start_workers: Callable[..., Workers]) -> None:
    tasks = Tasks(start_workers(8, 100))
    for _ in range(4):
        tasks.ask("", 40)
    settled(tasks, [""] * 2)
    for running in (2, 2, 1, 0):
        tasks.end("")
        settled(tasks, [""] * running)


def test_a_large_task_is_not_overtaken_for_ever(start_workers: Callable[..., Workers]) -> None:
    tasks = Tasks(start_workers(8, 100))
    tasks.ask("", 30)
    tasks.ask("large", 90)
    tasks.ask("small", 30)
    settled(tasks, [""])
    tasks.end("")
    settled(tasks, ["large"])
    tasks.end("large")
    settled(tasks, ["small"])
    tasks.end("small")


def test_an_owner_holds_half_of_the_memory(start_workers: Callable[..., Workers]) -> None:
    tasks = Tasks(start_workers(8, 100))
    for _ in range(3):
        tasks.ask("greedy", 30)
    settled(tasks, ["greedy"])
    tasks.ask("another", 60)
    settled(tasks, ["another", "greedy"])
    tasks.end("another")
    for _ in range(3):
        tasks.end("greedy")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_gives_up_waiting_lets_the_others_go_on(start_workers: Callable[..., Workers]) -> None:
    tasks = Tasks(start_workers(8, 100))
    tasks.ask("", 30)
    tasks.ask("large", 90)
    tasks.ask("small", 30)
    settled(tasks, [""])
    tasks.end("large")
    settled(tasks, ["", "small"])
    tasks.end("")
    tasks.end("small")


def encoded(format_: str, side: int, mode: str = "RGB", **options: Any) -> bytes:
    target = io.BytesIO()
    Image.new(mode, (side, side), 7 if len(mode) == 1 else (7,) * len(mode)).save(target, format_, **options)
    return target.getvalue()


def children_pss() -> int:
    """Memory of this process's children in bytes, what they share divided among them."""
    total = 0
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += 1024 * int(rollup.partition("\nPss:")[2].split()[0])
    return total


def test_many_large_images_at_once_take_no_more_than_the_budget(
    start_workers: Callable[..., Workers], tmp_path: Path
) -> None:
    """A WebP of 25 million pixels has a few bytes and takes half a GiB: of four at a time, two."""
    budget = image_bytes(Size(5000, 5000), "WEBP") + FIRST_BYTES
    workers = start_workers(4, budget)
    content = encoded("WEBP", 5000, lossless=True, quality=0, method=0)
    assert len(content) < 1000
    before, most, over = children_pss(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, children_pss())

    def read(number: int) -> None:
        image = Attachment("image", f"image[{number}]", content)
        (picture,) = Reader(Library(tmp_path, 1 << 26), workers, readers.go_on).image(image)
        assert picture.shape == (5000, 5000, 3)

    watcher = threading.Thread(target=watch)
    reading = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in (watcher, *reading):
        thread.start()
    for thread in reading:
        thread.join()
    over.set()
    watcher.join()
    assert 200 * MIB < most - before < budget + 4 * IDLE_BYTES


PEAK = """
import sys
from pathlib import Path
from preprocess.images.images import decode_image, read_image_size
from preprocess.media.library import Library
from preprocess.media.attachment import Attachment

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

image = Attachment("image", "image", Path(sys.argv[1]))
told = []
before = peak()
read_image_size(Library(None, 1 << 26, demand=told.append), image)
decode_image(Library(None, 1 << 26, demand=told.append), image)
print(max(told), peak() - before)
"""


@pytest.mark.parametrize(
    ("format_", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {"turned": True}),
        ("JPEG", "CMYK", {"progressive": True, "turned": True}),
        ("WEBP", "RGBA", {"turned": True}),
        ("WEBP", "RGB", {"save_all": True}),
        ("GIF", "P", {"transparency": 0}),
        ("BMP", "RGB", {}),
        ("TIFF", "CMYK", {"compression": "tiff_deflate", "turned": True}),
    ],
)
def test_images_take_no_more_than_they_are_counted_for(
    format_: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    if options.pop("turned", False):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    if options.get("save_all"):
        options["append_images"] = [Image.new(mode, (4096, 4096), (1, 2, 3))]
    path = tmp_path / "image"
    path.write_bytes(encoded(format_, 4096, mode, **options))
    folder = Path(reader_module.__file__).parents[1]
    frugal = {"MALLOC_MMAP_THRESHOLD_": str(MIB), "PYTHONPATH": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", PEAK, path], env={**os.environ, **frugal}, stdout=subprocess.PIPE, text=True, check=True
    )
    told, taken = map(int, run.stdout.split())
    assert 3 * 4096 * 4096 < taken < told < 24 * 4096 * 4096


@pytest.mark.parametrize(
    ("memory_bytes", "limits", "bound"),
    [
        (300 * MIB, WorkerLimits(), f"{300 * MIB} are accepted (max_decoding_bytes)"),
        (None, WorkerLimits(memory_bytes=600 * MIB), f"{600 * MIB} are accepted (worker_memory_bytes)"),
    ],
)
def test_an_image_that_never_fits_is_refused_with_the_bound(
    memory_bytes: int | None, limits: WorkerLimits, bound: str, start_workers: Callable[..., Workers], tmp_path: Path
) -> None:
    reader = Reader(Library(tmp_path, 1 << 26), start_workers(2, memory_bytes, limits), readers.go_on)
    for image in (encoded("PNG", 8192, "L"), encoded("WEBP", 8192, lossless=True, quality=0, method=0)):
        with pytest.raises(InvalidArgumentError) as caught:
            reader.image_size(Attachment("image", "image[0]", image))
        needed = image_bytes(Size(8192, 8192), "WEBP" if image.startswith(b"RIFF") else "PNG")
        assert str(caught.value) == (
            f"invalid_argument: image[0] takes {needed} bytes of memory to read; at most {bound}"
        )
    (picture,) = reader.image(Attachment("image", "i", media.make_image()))
    assert picture.shape == (64, 96, 3)


def test_a_request_is_told_that_its_image_never_fits(
    start_service: Callable[..., Service], recipient: Callable[..., Recipient]
) -> None:
    service = start_service(max_decoding_bytes=300 * MIB)
    refused, sent = recipient(), recipient()
    service.submit(Inputs(text="?", images=[media.make_image(), encoded("PNG", 8192, "L")]), refused)
    assert str(refused.wait().error).startswith("invalid_argument: image[1] takes ")
    service.submit(Inputs(text="?", images=[media.make_image()]), sent)
    assert sent.wait().error is None


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The memory that tasks were lent a worker with."""
    found: list[int] = []
    lend = Workers.lend

    def note(workers: Workers, interrupt: Callable[[], None], owner: str, memory_bytes: int) -> Any:
        found.append(memory_bytes)
        return lend(workers, interrupt, owner, memory_bytes)

    monkeypatch.setattr(Workers, "lend", note)
    return found


def test_large_frames_are_counted_before_they_are_decoded(
    lent: list[int], start_workers: Callable[..., Workers], tmp_path: Path
) -> None:
    media.make_video(tmp_path / "a.mp4", frames=3, width=3840, height=2160)
    reader = Reader(Library(tmp_path, 1 << 26), start_workers(1), readers.go_on)
    attachment = Attachment("video", "v", "a.mp4")
    video = reader.video(attachment, thumbnails=False, subtitles=False)
    assert len(list(reader.frames(video, np.arange(3)))) == 3
    assert lent == [FIRST_BYTES, video_bytes(Size(2160, 3840), 12)] * 2


def test_usual_media_are_read_at_once(lent: list[int], start_workers: Callable[..., Workers], tmp_path: Path) -> None:
    media.make_video(tmp_path / "a.mp4", frames=3, width=1920, height=1080)
    reader = Reader(Library(tmp_path, 1 << 26), start_workers(1), readers.go_on)
    reader.video(Attachment("video", "v", "a.mp4"), thumbnails=True, subtitles=False)
    content = encoded("JPEG", 4096)
    assert list(reader.image(Attachment("image", "i", content)))
    assert lent == [FIRST_BYTES, FIRST_BYTES + len(content)]


def still_film(path: Path, side: int) -> None:
    """Three frames of VP8, whose frames may have any size."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libvpx", rate=24, options={"deadline": "realtime", "cpu-used": "16"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((side * 3 // 2, side), np.uint8), format="yuv420p")
        for index in range(3):
            frame.pts = index
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def test_a_video_that_grows_takes_no_more_than_it_said(
    start_workers: Callable[..., Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header says that frames are small, and so are the first."""
    with av.open(str(tmp_path / "a.mkv"), "w") as target:
        stream = None
        for start, side in ((0, 64), (1000, 8192)):
            still_film(tmp_path / "part.mkv", side)
            with av.open(str(tmp_path / "part.mkv")) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + start, packet.dts + start, stream
                        target.mux(packet)
    reader = Reader(Library(tmp_path, 1 << 26), start_workers(1), readers.go_on)
    attachment = Attachment("video", "v", "a.mkv")
    video = reader.video(attachment, thumbnails=False, subtitles=False)
    monkeypatch.setattr(reader_module, "FIRST_BYTES", MIB * 40)
    with pytest.raises(InvalidArgumentError, match=f"v takes more than {MIB * 40} bytes of memory to read, the most"):
        list(reader.frames(video, np.arange(6)))


def test_unless_it_is_set_the_budget_is_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.workers.pool.memory_bytes", lambda: 8 << 30)
    assert most_memory() == 2 << 30


@pytest.mark.parametrize(
    ("given", "handed_over", "answer"),
    [
        (10, False, {"kind": "needs", "bytes": 40}),
        (30, False, {"kind": "needs", "bytes": 100}),
        (100, False, {"kind": "error", "code": "invalid_argument"}),
        (10, True, {"kind": "error", "code": "invalid_argument"}),
    ],
)
def test_a_task_that_runs_out_of_memory_may_have_more(given: int, handed_over: bool, answer: dict[str, Any]) -> None:
    """Unless there is no more, or the stage has a part of its result."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        courier = Courier(Exchange(ours))
        courier.has_handed_over = handed_over
        told = _lacking({"name": "v", "memory_bytes": given, "most_memory_bytes": 100}, courier).values
    assert answer.items() <= told.items()
