"""Pictures of hostile videos: whoever asks for one waits for it alone, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import av
import httpx2
import numpy as np
import pytest
from PIL import Image

from qwen3_vl_client import NotFound
from qwen3_vl_client.front.media.pictures import Pictures, TooManyPictures
from tests.support.front import wait_until
from tests.support.media import make_video
from tests.support.processes import descendants

Result = TypeVar("Result")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    make_video(folder / "clip.mp4", width=128, height=96, frames=40, fps=10, seed=3)
    one_key_frame(folder / "endless.mkv", frames=200_000)
    return folder


def one_key_frame(path: Path, frames: int) -> None:
    """To show its end all of it is decoded, which takes minutes; the same difference follows again and again."""
    with av.open(path, "w") as video:
        stream = video.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1920, 1088, "yuv420p"
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = 0, 600
        picture = av.VideoFrame.from_ndarray(np.zeros((1088, 1920, 3), np.uint8), format="rgb24")
        key, difference = (bytes(packet) for _ in range(2) for packet in stream.encode(picture))
        for number in range(frames):
            packet = av.Packet(difference if number else key)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), not number
            packet.pts = packet.dts = number
            video.mux(packet)


def decoders() -> list[int]:
    """Processes of this one that decode pictures."""
    return [pid for pid in descendants(os.getpid()) if b"picture_worker" in command(pid)]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def run(pictures: Pictures, work: Awaitable[Result]) -> Result:
    async def main() -> Result:
        try:
            return await work
        finally:
            await pictures.close()

    result = asyncio.run(main())
    assert decoders() == []
    return result


def height(jpeg: bytes) -> int:
    return Image.open(BytesIO(jpeg)).height


def test_others_see_pictures_while_one_is_endless(folder: Path) -> None:
    pictures = Pictures(max_seconds=2)

    async def main() -> None:
        hostile = [asyncio.create_task(pictures.jpeg(folder / "endless.mkv", 7000, "eve")) for _ in range(3)]
        await asyncio.sleep(0.2)
        for second in range(3):
            assert height(await pictures.jpeg(folder / "clip.mp4", second, "ann")) == 96
        assert not any(task.done() for task in hostile[1:])
        for task in hostile:
            with pytest.raises(NotFound, match="no picture at 7000 s"):
                await task
        assert height(await pictures.jpeg(folder / "clip.mp4", 1, "eve")) == 96

    run(pictures, main())


def test_a_decoder_that_dies_costs_its_own_picture(folder: Path) -> None:
    pictures = Pictures(workers=1, max_seconds=30)

    async def main() -> None:
        for ended_by in (signal.SIGXCPU, signal.SIGSEGV):
            hostile = asyncio.create_task(pictures.jpeg(folder / "endless.mkv", 7000, "eve"))
            waiting = asyncio.create_task(pictures.jpeg(folder / "clip.mp4", 1, "ann"))
            while not decoders():
                await asyncio.sleep(0.01)
            os.kill(decoders()[0], ended_by)
            with pytest.raises(NotFound):
                await hostile
            assert height(await waiting) == 96
        # One that dies while it waits costs none.
        os.kill(decoders()[0], signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert height(await pictures.jpeg(folder / "clip.mp4", 1, "ann")) == 96

    run(pictures, main())


def test_who_goes_away_ends_the_decoder(folder: Path) -> None:
    pictures = Pictures(max_seconds=600)

    async def main() -> None:
        asked = [asyncio.create_task(pictures.jpeg(folder / "endless.mkv", 7000, owner)) for owner in ("eve", "eve")]
        while not decoders():
            await asyncio.sleep(0.01)
        for task in asked:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*asked, return_exceptions=True)
        )
        assert decoders() == []

    run(pictures, main())


def test_so_many_are_waited_for_at_most(folder: Path) -> None:
    pictures = Pictures(max_seconds=600, max_pending=2, max_pending_of_all=3)

    async def main() -> None:
        owners = ("eve", "eve", "bob")
        asked = [asyncio.create_task(pictures.jpeg(folder / "endless.mkv", 7000, owner)) for owner in owners]
        await asyncio.sleep(0)
        with pytest.raises(TooManyPictures, match="you wait for 2 pictures; at most 2"):
            await pictures.jpeg(folder / "clip.mp4", 1, "eve")
        with pytest.raises(TooManyPictures, match="all users wait for 3 pictures; at most 3"):
            await pictures.jpeg(folder / "clip.mp4", 1, "ann")
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert height(await pictures.jpeg(folder / "clip.mp4", 1, "eve")) == 96

    run(pictures, main())


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    pictures = Pictures(max_seconds=1)
    with pytest.raises(NotFound):
        run(pictures, pictures.jpeg(tmp_path / "pipe.mp4", 0, "eve"))


def test_on_the_page_another_user_does_not_notice(page: str, folder: Path) -> None:
    with httpx2.Client(base_url=page, timeout=60) as eve, httpx2.Client(base_url=page, timeout=60) as ann:
        eve.get("/"), ann.get("/")
        endless = eve.post("/files", params={"name": "a.mkv"}, content=(folder / "endless.mkv").read_bytes()).json()
        clip = ann.post("/files", params={"name": "a.mp4"}, content=(folder / "clip.mp4").read_bytes()).json()
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(eve.get(f"/files/{endless['id']}/picture", params={"at": 7000}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: bool(decoders()))
        for second in range(3):
            seen = ann.get(f"/files/{clip['id']}/picture", params={"at": second})
            assert seen.headers.get("content-type") == "image/jpeg", seen.text
        for thread in threads:
            thread.join()
        assert statuses == [404, 404]
        assert eve.get(f"/files/{endless['id']}/picture", params={"at": 0}).status_code == 200


def test_on_the_page_who_goes_away_ends_the_decoder(page: str, folder: Path) -> None:
    with httpx2.Client(base_url=page, timeout=60) as eve:
        eve.get("/")
        endless = eve.post("/files", params={"name": "a.mkv"}, content=(folder / "endless.mkv").read_bytes()).json()
        before = set(decoders())
        for _ in range(3):
            with pytest.raises(httpx2.TimeoutException):
                eve.get(f"/files/{endless['id']}/picture", params={"at": 7000}, timeout=0.5)
        wait_until(lambda: set(decoders()) <= before)
