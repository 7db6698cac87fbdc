"""Lines of subtitles, and a worker that is killed, through the real server."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.media import make_video

SRT = b"1\n00:00:00,500 --> 00:00:01,000\nMind the gap.\n\n2\n00:00:01,500 --> 00:00:02,000\nStand clear.\n"


def ask(server, options, **inputs):
    question = [*wire.question("What?", options=options, sampling={"max_tokens": 2}, **inputs)]
    return wire.ask(server.grpc_url, question).usage


@pytest.mark.parametrize("attached", [True, False], ids=["attached", "beside the video"])
def test_lines_are_part_of_the_prompt(server, media_root, clip, attached):
    if not attached:
        (media_root / "clips" / "clip.srt").write_bytes(SRT)
    inputs = {"video": [clip], "subtitles": [SRT]} if attached else {"video_uri": ["clips/clip.mp4"]}
    without = {name: value for name, value in inputs.items() if name != "subtitles"}
    told, plain = ask(server, {}, **inputs), ask(server, {"subtitles": False}, **without)
    assert told["media"][0]["lines"] == {"shown": 2, "left_out": 0}
    assert "lines" not in plain["media"][0]
    assert told["prompt_tokens"] > plain["prompt_tokens"] + 10
    assert told["video_tokens"] == plain["video_tokens"]


def test_a_worker_that_is_killed_costs_one_request(server, tmp_path):
    make_video(tmp_path / "long.mkv", frames=1500, width=320, height=240, codec="mpeg4")
    content = (tmp_path / "long.mkv").read_bytes()
    stage = server.pids()["video_preprocess"]
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        """The first worker that takes processor time for the video."""
        while not ended.wait(0.002):
            for pid in _children(stage):
                if killed or _cpu_ticks(pid) < _before.get(pid, 0) + 5:
                    continue
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    _before = {pid: _cpu_ticks(pid) for pid in _children(stage)}
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(wire.RequestError, match=r"unavailable: the process that read video\[0\] was killed"):
            wire.ask(server.grpc_url, wire.question("What?", video=[content], sampling={"max_tokens": 2}))
    finally:
        ended.set()
        killer.join()
    assert server.pids()["video_preprocess"] == stage
    assert wire.ask(server.grpc_url, wire.question("What?", video=[content], sampling={"max_tokens": 2})).usage


def _children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
