"""Files that are named as media and are none: sparse ones of gigabytes, pipes, devices. Nothing of them is read."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from qwen3_vl_client import InvalidRequest, NotFound, media
from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.media.fetch import Fetcher
from qwen3_vl_client.front.media.references import MediaReferences
from qwen3_vl_client.front.page.asked import Question
from qwen3_vl_client.front.page.conversation import messages
from qwen3_vl_client.front.settings import Settings
from qwen3_vl_client.uploads import StoredFile, Uploads
from tests.support.front import NOWHERE, served

SPARSE_BYTES = 1_900_000_000
BOUND = "at most 8,388,608 bytes are accepted"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with (tmp_path / "sparse.srt").open("wb") as file:
        file.truncate(SPARSE_BYTES)
    os.mkfifo(tmp_path / "pipe.srt")
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    (tmp_path / "zero.srt").symlink_to("/dev/zero")
    return tmp_path


@pytest.fixture
def uploads(root: Path) -> Uploads:
    return Uploads(root / "uploads", quota_bytes=2**32, capacity_bytes=2**32, expiry_seconds=3600)


def put_sparse(uploads: Uploads, owner: str) -> StoredFile:
    with uploads.begin(owner) as upload:
        upload.write(b"x")
        stored = upload.finish("lines.srt")
    os.truncate(stored.path, SPARSE_BYTES)
    return stored


def resolve(root: Path, uploads: Uploads, **named: Any) -> dict[str, Any]:
    references = MediaReferences(root, uploads, Fetcher([], max_bytes=1, max_seconds=1))

    async def main() -> dict[str, Any]:
        async with AsyncExitStack() as resources, asyncio.timeout(30):
            return await references.video("clip.mp4", named["subtitles"], "video", "ann", resources)

    return asyncio.run(main())


def test_subtitles_are_measured_before_they_are_read(root: Path, uploads: Uploads) -> None:
    encoded = "data:text/plain;base64," + base64.b64encode(bytes(9 * 2**20)).decode()
    for subtitles in ("sparse.srt", f"file://{root}/sparse.srt", put_sparse(uploads, "ann").id, encoded):
        with pytest.raises(InvalidRequest, match=rf"video\.subtitles: .* {BOUND}"):
            resolve(root, uploads, subtitles=subtitles)
    assert resolve(root, uploads, subtitles="clip.mp4")["subtitles"] == root / "clip.mp4"


@pytest.mark.parametrize("name", ["pipe.srt", "zero.srt", "/dev/zero", "uploads"])
def test_what_is_no_file_is_not_opened(root: Path, uploads: Uploads, name: str) -> None:
    with pytest.raises(NotFound):
        resolve(root, uploads, subtitles=name)


def test_the_library_reads_nothing_of_them(root: Path) -> None:
    with pytest.raises(InvalidRequest, match=BOUND):
        media.read("subtitles", [root / "sparse.srt"])
    with pytest.raises(InvalidRequest, match=BOUND):
        media.read("subtitles", [bytes(9 * 2**20)])
    with pytest.raises(InvalidRequest, match=r"subtitles of one request: .* at most 67,108,864"):
        media.read("subtitles", [bytes(8 * 2**20)] * 9)
    for path in (root / "pipe.srt", root / "zero.srt"):
        for kind in ("subtitles", "video", "image"):
            with pytest.raises(InvalidRequest, match="is no file but a pipe, a socket or a device"):
                media.read(kind, [path])


def test_the_page_refuses_them(root: Path, uploads: Uploads) -> None:
    put_sparse(uploads, "ann")
    with uploads.begin("ann") as upload:
        upload.write(b"a clip")
        clip = upload.finish("clip.mp4")
    (lines,) = (stored for stored in uploads.files("ann") if stored.name == "lines.srt")
    measured = StoredFile(**{**vars(lines), "size_bytes": SPARSE_BYTES})
    question = Question.model_validate({"files": [], "turns": [{"role": "user", "text": "What?"}]})
    with pytest.raises(InvalidRequest, match=BOUND):
        messages(question, [clip, measured], lambda stored: stored.id)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/summaries"])
def test_the_api_refuses_them_and_stays_small(root: Path, path: str) -> None:
    app = create_app(Settings(media_root=root, url=NOWHERE))
    video = {"url": "clip.mp4", "subtitles": "sparse.srt"}
    body: dict[str, Any] = {"model": "qwen3-vl", "video": "clip.mp4", "subtitles": "sparse.srt"}
    if path.endswith("completions"):
        part = {"type": "video_url", "video_url": video}
        body = {"model": "qwen3-vl", "messages": [{"role": "user", "content": [part]}]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with served(app) as url:
        refused = httpx2.post(url + path, json=body, timeout=60)
    assert refused.status_code == 400, refused.text
    assert BOUND in refused.json()["error"]["message"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 2**10
