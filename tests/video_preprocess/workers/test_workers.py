"""Worker processes: one that dies, stalls or takes too much costs its own request a clear error, and is replaced."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from preprocess.errors import DeadlineExceededError, InvalidArgumentError, RequestError
from preprocess.media.attachment import Attachment
from preprocess.media.library import MAX_STREAMS, Library
from preprocess.media.video import Video
from preprocess.request.request import Inputs
from preprocess.service import Service
from preprocess.workers.channel import Message
from preprocess.workers.pool import Workers, most_workers
from preprocess.workers.reader import Reader
from preprocess.workers.worker import Worker, WorkerLimits
from tests.support import media, readers
from tests.support.recipient import Recipient, eventually

MakeReader = Callable[..., Reader]


def _go_on() -> None:
    """Nothing interrupts."""


@pytest.fixture
def make_reader(tmp_path: Path) -> Iterator[MakeReader]:
    """`make_reader(stall_seconds=…)`: with one worker of its own, and these limits."""
    started: list[Workers] = []

    def make(**limits: Any) -> Reader:
        started.append(Workers(1, WorkerLimits(**limits)))
        return Reader(Library(tmp_path, 1 << 26), started[-1], readers.go_on)

    yield make
    for workers in started:
        workers.shut_down()


def opened(reader: Reader, name: str = "a.mp4", **options: Any) -> Video:
    assert reader.library.root is not None
    media.make_video(reader.library.root / name, **{"frames": 240, "key_frame_interval": 240, **options})
    return reader.video(Attachment("video", name, name), thumbnails=False, subtitles=True)


def children() -> set[int]:
    """Worker processes of this one that run."""
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, path.read_text().split()):
            with contextlib.suppress(OSError):
                if b"preprocess.workers.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(pid)
    return found


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (signal.SIGKILL, "unavailable: the process that read a.mp4 was killed, perhaps for want of memory"),
        (signal.SIGSEGV, "invalid_argument: a.mp4 cannot be read: its decoder crashed (SIGSEGV)"),
        (
            signal.SIGXCPU,
            "invalid_argument: a.mp4 takes more than 33 s of processor time to read,"
            " the most accepted for a file of its size and as many pictures",
        ),
        (signal.SIGSTOP, "deadline_exceeded: a.mp4 cannot be read: its decoder made no progress for 4 s"),
    ],
)
def test_a_worker_that_ends_or_stalls_costs_one_request(
    make_reader: MakeReader, sent: signal.Signals, message: str
) -> None:
    others = children()
    used = make_reader(stall_seconds=4 if sent is signal.SIGSTOP else 30)
    video = opened(used)
    frames = used.frames(video, np.arange(240))
    next(frames)
    (worker,) = children() - others
    os.kill(worker, sent)
    with pytest.raises(RequestError) as caught:
        list(frames)
    assert str(caught.value) == message
    assert is_gone(worker)
    assert len(list(used.frames(video, np.arange(5)))) == 5


def test_a_worker_that_dies_idle_costs_nothing(make_reader: MakeReader) -> None:
    others = children()
    used = make_reader()
    video = opened(used)
    (worker,) = children() - others
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: b"State:\tZ" in Path(f"/proc/{worker}/status").read_bytes())
    assert len(list(used.frames(video, np.arange(5)))) == 5


def test_a_place_that_is_given_back_after_the_task_has_failed_costs_nothing(make_reader: MakeReader) -> None:
    others = children()
    used = make_reader()
    video = opened(used)
    (worker,) = children() - others
    with used.workers.lend(_go_on) as lent:
        lent.reply(Message({"slot": 0}))
    assert len(list(used.frames(video, np.arange(5)))) == 5
    assert children() - others == {worker}


def test_an_interrupt_ends_the_work(make_reader: MakeReader) -> None:
    others = children()
    used = make_reader()
    video = opened(used)
    (worker,) = children() - others
    stop = threading.Event()

    def interrupt() -> None:
        if stop.is_set():
            raise TimeoutError

    used.interrupt = interrupt
    frames = used.frames(video, np.arange(240))
    next(frames)
    stop.set()
    with pytest.raises(TimeoutError):
        list(frames)
    assert is_gone(worker)


def test_processor_time_is_bounded_for_each_task(make_reader: MakeReader) -> None:
    others = children()
    used = make_reader(task_cpu_seconds=100)
    for _ in range(2):
        video = opened(used, frames=5)
        (worker,) = children() - others
        limits = Path(f"/proc/{worker}/limits").read_text()
        found = re.search(r"Max cpu time +(\d+)", limits)
        assert found is not None
        assert 100 <= int(found[1]) <= 110
        assert "Max core file size        0" in limits
    assert len(list(used.frames(video, np.arange(5)))) == 5


def test_as_many_workers_as_requests_and_then_one(make_reader: MakeReader) -> None:
    others = children()
    used = make_reader()
    video = opened(used)
    readings = [used.frames(video, np.arange(240)) for _ in range(3)]
    for frames in readings:
        next(frames)
    assert len(children() - others) == 3
    assert [len(list(frames)) for frames in readings] == [239] * 3
    assert len(children() - others) == 1


class Pool:
    """Workers, and threads that take one each and hold it until they are told."""

    def __init__(self, most: int) -> None:
        self.workers = Workers(1, WorkerLimits(), most)
        self.holding: list[str] = []
        self.most = 0
        self._threads: list[tuple[str, threading.Event, threading.Thread]] = []

    def ask(self, owner: str) -> None:
        over = threading.Event()

        def hold() -> None:
            with self.workers.lend(_go_on, owner):
                self.holding.append(owner)
                self.most = max(self.most, len(self.holding))
                over.wait()
                self.holding.remove(owner)

        before = len(self.workers._waiting) + self.workers._held.total()
        self._threads.append((owner, over, threading.Thread(target=hold)))
        self._threads[-1][2].start()
        eventually(lambda: len(self.workers._waiting) + self.workers._held.total() > before)

    def give_back(self, owner: str) -> None:
        """The first that this owner took."""
        first = next(entry for entry in self._threads if entry[0] == owner)
        self._threads.remove(first)
        first[1].set()
        first[2].join()

    def shut_down(self) -> None:
        for _, over, _ in self._threads:
            over.set()
        for _, _, thread in self._threads:
            thread.join()
        self.workers.shut_down()


@pytest.fixture
def pool() -> Iterator[Callable[[int], Pool]]:
    """`pool(most)`: with a bound of its own."""
    made: list[Pool] = []

    def make(most: int) -> Pool:
        made.append(Pool(most))
        return made[-1]

    yield make
    for each in made:
        each.shut_down()


def test_no_more_workers_than_the_bound_however_many_ask(pool: Callable[[int], Pool]) -> None:
    others = children()
    used = pool(3)
    for _ in range(12):
        used.ask("")
    eventually(lambda: len(used.holding) == 3)
    assert len(children() - others) == 3
    for _ in range(9):
        used.give_back("")
        eventually(lambda: len(used.holding) == 3)
    assert used.most == 3
    assert len(children() - others) == 3


def test_an_owner_holds_half_of_the_workers_and_the_others_need_not_wait(pool: Callable[[int], Pool]) -> None:
    used = pool(4)
    for _ in range(8):
        used.ask("greedy")
    eventually(lambda: used.holding == ["greedy"] * 2)
    for owner in ("", "another"):
        used.ask(owner)
    eventually(lambda: sorted(used.holding) == ["", "another", "greedy", "greedy"])
    # One that comes later, and holds none, is before those that came first.
    used.ask("late")
    used.give_back("greedy")
    eventually(lambda: "late" in used.holding)
    assert used.holding.count("greedy") == 1
    used.give_back("")
    eventually(lambda: used.holding.count("greedy") == 2)


def test_equals_get_workers_in_the_order_in_which_they_came(pool: Callable[[int], Pool]) -> None:
    used = pool(1)
    used.ask("first")
    eventually(lambda: used.holding == ["first"])
    for owner in ("b", "", "a"):
        used.ask(owner)
    for owner, following in (("first", "b"), ("b", ""), ("", "a")):
        used.give_back(owner)
        eventually(lambda following=following: used.holding == [following])


def test_waiting_for_a_worker_is_no_stall_and_can_be_interrupted(tmp_path: Path) -> None:
    workers = Workers(1, WorkerLimits(stall_seconds=0.2), 1)
    called = 0

    def interrupt() -> None:
        nonlocal called
        called += 1
        if called == 10:
            raise TimeoutError

    try:
        with workers.lend(_go_on), pytest.raises(TimeoutError), workers.lend(interrupt):
            pass
        assert called == 10
        with workers.lend(_go_on) as worker:
            assert worker.is_alive()
    finally:
        workers.shut_down()


def test_the_bound_is_by_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, most in ((1, 4), (2, 4), (16, 32)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert most_workers() == most


def test_the_owner_of_a_request_is_whom_a_worker_is_lent_to(
    start_service: Callable[..., Service], recipient: Callable[..., Recipient], monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: list[str] = []
    lend = Workers.lend

    def note(workers: Workers, interrupt: Callable[[], None], owner: str, memory_bytes: int) -> Any:
        owners.append(owner)
        return lend(workers, interrupt, owner, memory_bytes)

    monkeypatch.setattr(Workers, "lend", note)
    for cache_bytes in (0, 1 << 24):
        sent = recipient()
        inputs = Inputs(text="?", images=[media.make_image()], cache_salt="mine")
        start_service(cache_bytes=cache_bytes).submit(inputs, sent)
        assert sent.wait().error is None
    assert owners == ["mine"] * 4


def test_workers_end_with_the_stage(tmp_path: Path) -> None:
    script = (
        "import os, signal, time\n"
        "from preprocess.workers.pool import *\n"
        "workers = Workers(2, WorkerLimits())\n"
        "with workers.lend(lambda: None), workers.lend(lambda: None): pass\n"
        "print(*[pid for task in os.listdir('/proc/self/task')"
        " for pid in open(f'/proc/self/task/{task}/children').read().split()], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = Path(sys.modules["preprocess"].__path__[0]).parent
    run = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(folder)}
    )
    assert run.returncode == -signal.SIGKILL
    pids = list(map(int, run.stdout.split()))
    assert len(pids) == 2
    for pid in pids:
        eventually(lambda pid=pid: is_gone(pid))


def test_frames_larger_than_those_before(make_reader: MakeReader, tmp_path: Path) -> None:
    """A stream may change its size half-way."""
    media.make_video(tmp_path / "a.mkv", codec="libvpx", frames=6)
    media.make_video(tmp_path / "b.mkv", codec="libvpx", frames=6, width=192, height=128)
    with av.open(str(tmp_path / "joined.mkv"), "w") as target:
        stream = None
        for start, name in ((0, "a.mkv"), (1000, "b.mkv")):
            with av.open(str(tmp_path / name)) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + start, packet.dts + start, stream
                        target.mux(packet)
    used = make_reader()
    video = used.video(Attachment("video", "v", "joined.mkv"), thumbnails=False, subtitles=True)
    shapes = [picture.shape for _, picture in used.frames(video, np.arange(12))]
    assert shapes == [(64, 96, 3)] * 6 + [(128, 192, 3)] * 6


def test_bombs_of_length_and_number(make_reader: MakeReader, tmp_path: Path) -> None:
    used = make_reader()
    media.make_video(tmp_path / "long.mkv", frames=2, fps=1)
    bomb = Reader(Library(tmp_path, 1 << 26, max_seconds=1.5), used.workers, readers.go_on)
    with pytest.raises(InvalidArgumentError, match=r"v lasts 2 seconds; at most 2 are accepted"):
        bomb.video(Attachment("video", "v", "long.mkv"), thumbnails=True, subtitles=True)
    tracks = [("subrip", "eng", [])] * MAX_STREAMS
    media.make_video(tmp_path / "many.mkv", subtitles=tracks)
    with pytest.raises(InvalidArgumentError, match=f"v has {MAX_STREAMS + 1} streams; at most {MAX_STREAMS}"):
        used.video(Attachment("video", "v", "many.mkv"), thumbnails=True, subtitles=True)


class SlowExchange:
    """A message is there after so many looks, of a twentieth of a second each."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def has_message(self, timeout_seconds: float) -> bool:
        time.sleep(0.05)
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize(("share", "stalls"), [(0.01, False), (0.0, True), (5.0, True)])
def test_a_worker_that_gets_little_of_the_processor_does_not_stall(
    monkeypatch: pytest.MonkeyPatch, share: float, stalls: bool
) -> None:
    """Of two seconds it computes a hundredth, or nothing, or as much as five processors."""
    worker = object.__new__(Worker)
    began = time.monotonic()
    monkeypatch.setattr(worker, "_limits", WorkerLimits(stall_seconds=0.5), raising=False)
    monkeypatch.setattr(worker, "_exchange", SlowExchange(looks=40), raising=False)
    monkeypatch.setattr(Worker, "_computed_seconds", lambda self: share * (time.monotonic() - began))
    task = Message({"name": "v"})
    if stalls:
        with pytest.raises(DeadlineExceededError, match="made no progress"):
            worker._wait(task, _go_on)
    else:
        worker._wait(task, _go_on)


def test_a_worker_goes_before_a_stage_where_memory_runs_out(make_reader: MakeReader) -> None:
    others = children()
    opened(make_reader())
    (worker,) = children() - others
    assert Path(f"/proc/{worker}/oom_score_adj").read_text().strip() == "1000"
